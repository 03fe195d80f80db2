"""The offline demo: a generated world, a hand-written vision encoder, MiniLM, and a page."""

from lateen.demo.flow import run_demo

__all__ = ["run_demo"]
