"""``python -m lateen`` is the ``lateen`` command."""

from lateen.cli import main

main()
