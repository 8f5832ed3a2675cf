"""Where a job puts pieces of surface away, and what it takes to go on with it later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from precomputed_store.mesh_objects import delete_all
from precomputed_store.meshing.run import MARK
from precomputed_store.storage import Storage

__all__ = ["Workplace"]

_PREFIX: Final = ".pieces-"
_JOB: Final = "job.json"
_ERASED: Final = "erased"


@dataclass(frozen=True, slots=True)
class Workplace:
    """A temporary folder beside the meshes, of one job and of no other.

    Its name is made of what the job is to do: the same job finds it again, and different jobs
    do not meet.

    Attributes
    ----------
    meshes : Storage
        The folder of meshes.
    job : mapping
        Everything that decides what is put away here, as JSON.
    """

    meshes: Storage
    job: Mapping[str, Any]

    @property
    def name(self) -> str:
        text = json.dumps(self.job, sort_keys=True)
        return f"{_PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def storage(self) -> Storage:
        return self.meshes.child(self.name)

    def begin(self, *, resume: bool, discard: bool) -> None:
        """Make it ready: empty, or as the same job has left it.

        Parameters
        ----------
        resume : bool
            Go on with what is there.
        discard : bool
            Otherwise: remove what is there, of other jobs as well.

        Raises
        ------
        FileExistsError
            The same job was begun and not ended, and neither is said.
        UnsupportedError
            The storage cannot list, so that nothing could be removed later.
        """
        others = [name for name in self.meshes.list_names() if name.startswith(_PREFIX)]
        if discard and not resume:
            for other in others:
                _clear(self.meshes, other)
        elif self.name in others and self.is_begun and not resume:
            raise FileExistsError(
                f"{self.storage.url}: the same call was made before and has not ended: "
                "resume=True goes on with it, mode='w' starts afresh"
            )
        self.storage.delete(MARK)
        text = json.dumps(self.job, indent=2)
        self.storage.put(_JOB, text.encode(), content_type="application/json")

    @property
    def is_begun(self) -> bool:
        """Whether the same job was begun and not ended."""
        return self.storage.exists(_JOB)

    def marks(self) -> set[str]:
        """What was put away and ticked off."""
        return set(self.storage.list_names())

    @property
    def has_erased(self) -> bool:
        """Whether the meshes that were there before are gone already."""
        return self.storage.exists(_ERASED)

    def tick_erased(self) -> None:
        self.storage.put(_ERASED, b"1", content_type="text/plain")

    def clear(self) -> None:
        """Remove everything, and the folder."""
        _clear(self.meshes, self.name)


def _clear(meshes: Storage, name: str) -> None:
    storage = meshes.child(name)
    delete_all(storage, sorted(set(storage.list_names()) - {_JOB}))
    # The last one: what is left of an interrupted removal is still known to be left.
    storage.delete(_JOB)
    meshes.sweep(name, older_than_s=0)
    meshes.remove_empty_folder(name)
