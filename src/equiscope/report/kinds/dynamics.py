"""What a checkpoint foretells: annealing, twirling against training, the optimiser's noise, the time to 2 %."""
from dataclasses import dataclass
from equiscope.report.kinds import Kind, Table
@dataclass(frozen=True)
class Dynamics:
    annealing: dict
def words(steps, related):
    return "x", [Table(["a"],[["b"]])]
KIND = Kind(10, "What a checkpoint foretells", Dynamics, words)
