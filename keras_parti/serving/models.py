"""The models that a server serves, as a `ModelConfigList` names them."""

import logging
import threading

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from keras_parti.serving.refusals import invalid, not_found, precondition
from keras_parti.serving.versions import Model, missing

logger = logging.getLogger(__name__)


def one_model(name, folder):
    """A `ModelConfigList` of one model, of which the latest version is served."""
    configs = model_server_config_pb2.ModelConfigList()
    configs.config.add(name=name, base_path=str(folder), model_platform="tensorflow")
    return configs


def read_config(path):
    """Reads a models.config, a `ModelServerConfig` in protobuf's text format.

    Args:
        path: `pathlib.Path`.

    Returns:
        `ModelConfigList`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no such config, or one that no server would take.
    """
    config = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no ModelServerConfig: {error}") from error
    check(config.model_config_list)
    return config.model_config_list


def check(configs):
    """Raises `ValueError` where a `ModelConfigList` cannot be served."""
    if not configs.config:
        raise ValueError("model_config_list must name at least one model. It is empty")
    names = [config.name for config in configs.config]
    for config in configs.config:
        if not config.name or not config.base_path:
            raise ValueError(
                "Each model must have a name and a base_path. "
                f"Received: name={config.name!r}, base_path={config.base_path!r}"
            )
        if names.count(config.name) > 1:
            raise ValueError(f"Model names must differ. Received twice: {config.name}")
        if config.model_platform not in ("", "tensorflow"):
            raise ValueError(
                f"model_platform must be tensorflow. Received: {config.model_platform}"
            )


class Models:
    """All models of a server, found by the `ModelSpec` of a request.

    Args:
        warm_up: bool. Whether versions are warmed up before they answer.
    """

    def __init__(self, warm_up=True):
        self._warm_up = warm_up
        self._models = {}
        self._configuring = threading.Lock()
        self._said = {}

    def __iter__(self):
        return iter(list(self._models.values()))

    def __contains__(self, name):
        return name in self._models

    def configure(self, configs):
        """Serves what the list names, and nothing else: all of it, or no change.

        Args:
            configs: `ModelConfigList`.

        Raises:
            ValueError: The list is wrong, or a model in it does not load.
            FileNotFoundError: A folder is missing, or has no versions.
        """
        check(configs)
        with self._configuring:
            models, new = {}, []
            try:
                for config in configs.config:
                    known = self._models.get(config.name)
                    if known is None or known.config.base_path != config.base_path:
                        known = Model(config, self._warm_up)
                        new.append(known)
                        known.sync()
                    models[config.name] = known
                    check_available(known, config)
            except Exception:
                for model in new:
                    model.close()
                raise
            removed = set(self._models.values()) - set(models.values())
            for config in configs.config:
                models[config.name].reconfigure(config)
            self._models = models
            for model in removed:
                model.close()
        self.sync()

    def reload(self, config):
        """Answers `HandleReloadConfigRequest` for a `ModelServerConfig`.

        Raises:
            tf.errors.OpError: What is wrong with it; the models stay as they were.
        """
        if config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        try:
            self.configure(config.model_config_list)
        except FileNotFoundError as error:
            raise not_found(str(error)) from error
        except ValueError as error:
            raise precondition(str(error)) from error

    def sync(self):
        """Looks for new versions of all models; what is wrong is logged once."""
        for model in self:
            try:
                model.sync()
                words = None
            except OSError as error:
                words = str(error)
            if words and words != self._said.get(model.name):
                logger.warning("%s: %s", model.name, words)
            self._said[model.name] = words

    def lease(self, spec):
        """A loaded `Servable` for a `ModelSpec`, as a context.

        Raises:
            tf.errors.OpError: There is none.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        version = spec.version.value if choice == "version" else None
        label = spec.version_label if choice == "version_label" else None
        if spec.name not in self._models:
            wanted = f"Latest({spec.name})"
            if version is not None:
                wanted = f"Specific({spec.name}, {version})"
            if label is not None:
                raise invalid(f"Unrecognized servable version label: {label}")
            raise not_found(f"Servable not found for request: {wanted}")
        return self._models[spec.name].lease(version, label)

    def status(self, spec):
        """A `GetModelStatusResponse` for a `ModelSpec`.

        Raises:
            tf.errors.OpError: There is no such model or version.
        """
        version = spec.version.value if spec.HasField("version") else None
        if spec.name not in self._models:
            raise missing(spec.name, version)
        model = self._models[spec.name]
        if spec.HasField("version_label"):
            version = model.labelled(spec.version_label)
        return model.status(version)

    def abandon(self):
        """Unloads everything at once: what is still at work ends as cancelled."""
        models, self._models = list(self), {}
        for model in models:
            model.abandon()


def check_available(model, config):
    """Raises `ValueError` where nothing answers, or not what a label stands for."""
    if not model.available:
        reasons = "; ".join(model.reasons()) or "no version that is asked for is there"
        raise ValueError(f"Model folder {model.folder}: {reasons}.")
    for version in config.version_labels.values():
        if version not in model.available:
            raise ValueError(
                f"Request to assign label to version {version} of model {model.name}, "
                "which is not currently available for inference"
            )
