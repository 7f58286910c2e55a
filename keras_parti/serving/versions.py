"""The versions of one model: which are wanted, loaded, in use, and gone.

A version is asked for by a folder with a number for its name. It is loaded and warmed
up beside those that serve; only when it answers does it take over, and the old one is
unloaded when its last request is finished. One that does not load says why in its
status, and the old one goes on.
"""

import contextlib
import logging
import threading
from pathlib import Path

from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus as Status

from keras_parti.serving.refusals import invalid, not_found
from keras_parti.serving.servable import Servable

logger = logging.getLogger(__name__)

A_MODEL = "*/[0-9]*/saved_model.pb"  # below a folder of models
DATA_LOSS = 15  # gRPC's code in the status of a version that does not load


class Version:
    """One numbered version, in one of the real server's states."""

    def __init__(self, folder):
        self.folder = folder
        self.number = int(folder.name)
        self.state = Status.START
        self.reason = ""  # why it does not load
        self.servable = None
        self.users = 0
        self.tried = None  # what was in the folder when it did not load

    def load(self, warm_up):
        """Loads and warms up; what goes wrong is the reason of the end."""
        self.state, self.reason = Status.LOADING, ""
        self.tried = contents(self.folder)
        try:
            self.servable = Servable(self.folder, warm_up)
        except ValueError as error:
            self.state, self.reason = Status.END, str(error)
        except Exception as error:  # such as a folder that went away meanwhile
            self.state, self.reason = Status.END, f"it does not load: {error!r}"

    def describe(self):
        """A `ModelVersionStatus`."""
        status = Status(version=self.number, state=self.state)
        status.status.SetInParent()
        if self.reason:
            status.status.error_code = DATA_LOSS
            status.status.error_message = self.reason
        return status


class Model:
    """The versions of a model that a `ModelConfig` describes.

    Args:
        config: `ModelConfig`; `base_path` is a folder with a sub-folder for each
            version, `1`, `2`, ...
        warm_up: bool. Whether versions are warmed up before they answer.
    """

    def __init__(self, config, warm_up=True):
        self.config = config
        self.name = config.name
        self.folder = Path(config.base_path)
        self._warm_up = warm_up
        self._versions = {}
        self._changed = threading.Condition()
        self._syncing = threading.Lock()
        self._ended = False

    @property
    def available(self):
        """The numbers of the versions that answer, sorted."""
        with self._changed:
            return self._available()

    def reconfigure(self, config):
        """Takes another policy and other labels for the same folder."""
        with self._changed:
            self.config = config

    @contextlib.contextmanager
    def lease(self, version=None, label=None):
        """A `Servable` that stays loaded while it is in use.

        Args:
            version: int; by default the newest.
            label: str. A name for a version, instead of it.

        Raises:
            tf.errors.OpError: There is none.
        """
        with self._changed:
            ready = self._available()
            if label is not None:
                version = self.labelled(label)
            if version is None:
                wanted, version = f"Latest({self.name})", max(ready, default=None)
            else:
                wanted = f"Specific({self.name}, {version})"
            if version not in ready:
                raise not_found(f"Servable not found for request: {wanted}")
            used = self._versions[version]
            used.users += 1
        try:
            yield used.servable
        finally:
            with self._changed:
                used.users -= 1
                self._changed.notify_all()

    def labelled(self, label):
        """The number of the version that a label stands for.

        Raises:
            tf.errors.InvalidArgumentError: There is no such label.
        """
        if label not in self.config.version_labels:
            raise invalid(f"Unrecognized servable version label: {label}")
        return self.config.version_labels[label]

    def status(self, version=None):
        """Describes one version, or all of them, the newest first.

        Returns:
            `GetModelStatusResponse`.

        Raises:
            tf.errors.NotFoundError: There is none.
        """
        response = get_model_status_pb2.GetModelStatusResponse()
        with self._changed:
            for number in sorted(self._versions, reverse=True):
                if version in (None, number):
                    entry = response.model_version_status.add()
                    entry.CopyFrom(self._versions[number].describe())
        if not response.model_version_status:
            raise missing(self.name, version)
        return response

    def sync(self):
        """Looks into the folder: loads what is wanted, unloads what is not.

        Raises:
            FileNotFoundError: There is no such folder, or no version in it.
        """
        with self._syncing:
            if self._ended:
                return
            folders = version_folders(self.folder)
            policy = self.config.model_version_policy
            wanted = choose(folders, policy)
            for number in wanted:
                self._load(folders[number])
            # Where the latest does not load, an older one is better than none.
            for number in sorted(folders, reverse=True):
                if self.available or policy.HasField("specific"):
                    break
                self._load(folders[number])
            if set(wanted) & set(self.available):
                for number in set(self.available) - set(wanted):
                    self._unload(number)

    def reasons(self):
        """Why versions do not answer: a list of str, the newest first."""
        with self._changed:
            broken = [v for v in self._versions.values() if v.reason]
        broken.sort(key=lambda version: -version.number)
        return [f"version {v.number} is not whole: {v.reason}" for v in broken]

    def close(self):
        """Unloads everything, once its requests are finished."""
        with self._syncing:
            self._ended = True
            for number in self.available:
                self._unload(number)

    def abandon(self):
        """Unloads everything at once: what is still at work ends as cancelled."""
        with self._changed:
            self._ended = True
            for number in self._available():
                self._versions[number].state = Status.END
                self._versions[number].servable.close()

    def _available(self):
        return sorted(
            n for n, v in self._versions.items() if v.state == Status.AVAILABLE
        )

    def _load(self, folder):
        known = self._versions.get(int(folder.name))
        if self._ended or (known and known.state == Status.AVAILABLE):
            return
        # A folder that is copied bit by bit is tried again when more of it is there.
        if known and known.reason and known.tried == contents(folder):
            return
        failed = known.reason if known else ""
        version = Version(folder)
        with self._changed:
            self._versions[version.number] = version
        if not failed:  # said once of a folder that is tried again and again
            logger.info(
                "Version %d of %s found: loading%s ...",
                version.number,
                self.name,
                " and warming up" if self._warm_up else "",
            )
        version.load(self._warm_up)
        with self._changed:
            if version.servable and self._ended:  # abandoned while it loaded
                version.servable.close()
                version.state = Status.END
                return
            if version.servable:
                version.state = Status.AVAILABLE
        if version.servable:
            logger.info("Serving %s, version %d.", self.name, version.number)
        elif version.reason != failed:
            others = self.available
            logger.warning(
                "%s: version %d is not whole: %s.%s",
                self.folder,
                version.number,
                version.reason.rstrip("."),
                f" Version {others[-1]} goes on." if others else "",
            )

    def _unload(self, number):
        version = self._versions[number]
        with self._changed:
            version.state = Status.UNLOADING
            self._changed.wait_for(lambda: version.users == 0)
            version.servable.close()
            version.servable = None
            version.state = Status.END
        logger.info("Version %d of %s has ended.", number, self.name)


def missing(name, version):
    """What `GetModelStatus` answers of a model or a version that is not there."""
    if version is None:
        return not_found(f"Could not find any versions of model {name}")
    return not_found(f"Could not find version {version} of model {name}")


def version_folders(folder):
    """The version folders of a model, a dict from their numbers.

    Raises:
        FileNotFoundError: There is no such folder, or it holds no version.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"No model folder {folder}. `keras-parti export` writes one."
        )
    # The real server, too, takes a name made of digits as a version, and no other.
    found = [p for p in folder.iterdir() if p.name.isdecimal() and p.is_dir()]
    if not found:
        hint = "holds no version folders (1, 2, ...)"
        if (folder / "saved_model.pb").exists():
            hint = f"is a SavedModel, not a folder of versions; give {folder.parent}"
        elif models := sorted({str(p.parents[1]) for p in folder.glob(A_MODEL)}):
            hint += f"; give one of the models in it: {', '.join(models)}"
        raise FileNotFoundError(f"Model folder {folder} {hint}.")
    return {int(path.name): path for path in found}


def choose(numbers, policy):
    """The versions that a `ServableVersionPolicy` wants, among those that are there."""
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return sorted(numbers)
    if kind == "specific":
        return sorted(set(policy.specific.versions) & set(numbers))
    return sorted(numbers)[-max(policy.latest.num_versions, 1) :]


def contents(folder):
    """Sizes and times of the files of a folder: equal as long as nothing changes."""
    found = []
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(OSError):  # removed meanwhile
            status = path.stat()
            found.append((str(path), status.st_size, status.st_mtime_ns))
    return found
