"""The offline demo: a generated world, a hand-written vision encoder, MiniLM, and a page."""

from lateen.demo.flow import run_demo
from lateen.demo.world import World, generate_world

__all__ = ["World", "generate_world", "run_demo"]
