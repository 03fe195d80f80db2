"""An index served on a page and as JSON: ``lateen serve``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lateen.exports import exported

if TYPE_CHECKING:
    from lateen.serving.app import create_app as create_app
    from lateen.serving.settings import ServeSettings as ServeSettings

__getattr__, __all__ = exported(
    __name__,
    {
        "lateen.serving.app": ["create_app"],
        "lateen.serving.settings": ["ServeSettings"],
    },
)
