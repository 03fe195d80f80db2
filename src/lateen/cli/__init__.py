"""The command line: the only place that parses arguments and prints results."""

from lateen.cli.app import main

__all__ = ["main"]
