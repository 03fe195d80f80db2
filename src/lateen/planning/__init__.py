"""What a recipe will cost on this machine, from a little of everything that it will do."""

from lateen.planning.prediction import plan

__all__ = ["plan"]
