"""What a recipe will cost on this machine, from a little of everything that it will do."""

from lateen.experiment.planning.cluster import ClusterTerms, StatedData, plan_cluster
from lateen.experiment.planning.prediction import plan

__all__ = ["ClusterTerms", "StatedData", "plan", "plan_cluster"]
