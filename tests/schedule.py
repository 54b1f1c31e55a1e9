"""Which process of the tests takes which file: some take those with many tests, the others those with few, until they meet.

Law: a file is one process's, as with xdist's `--dist loadfile`, whose place this takes. Files with many tests keep a core busy; those with
few start gateways and wait for them. Side by side they leave no core idle, where two that wait would, and two that compute would be slow.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController


class FromBothEnds(LoadFileScheduling):
    """The first process takes from the front, where xdist puts files with many tests, the second from the back, and so on."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        if int(node.gateway.id.removeprefix("gw")) % 2:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """What is done is forgotten: xdist counts all that a process was ever given, again at every test."""
        super().mark_test_complete(node, item_index, duration)
        scope = self._split_scope(self.registered_collections[node][item_index])
        files = self.assigned_work[node]
        if all(files[scope].values()):
            del files[scope]
