"""What starts `tensorflow_model_server` is written as it reads it."""

from pathlib import Path

import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from keras_parti.serving.row_sizes import ROW_SIZES
from keras_parti.serving.rows import ROWS_PER_REQUEST

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "serving"


def read(name, message):
    return text_format.Parse((FOLDER / name).read_text(encoding="utf-8"), message)


def messages():
    """Two messages of the server that its Python package leaves out.

    From `session_bundle_config.proto` and `monitoring_config.proto` of TensorFlow
    Serving; the numbers of the fields do not matter for the text format.
    """
    field = descriptor_pb2.FieldDescriptorProto
    number, text = ".google.protobuf.Int64Value", ".google.protobuf.StringValue"
    batching = {
        "max_batch_size": number,
        "batch_timeout_micros": number,
        "max_enqueued_batches": number,
        "num_batch_threads": number,
        "thread_pool_name": text,
        "allowed_batch_sizes": field.TYPE_INT64,
        "pad_variable_length_inputs": field.TYPE_BOOL,
    }
    prometheus = {"enable": field.TYPE_BOOL, "path": field.TYPE_STRING}
    file = descriptor_pb2.FileDescriptorProto(name="configs.proto", package="configs")
    file.syntax = "proto3"
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for name, fields in (
        ("Batching", batching),
        ("Prometheus", prometheus),
        ("Monitoring", {"prometheus_config": ".configs.Prometheus"}),
    ):
        message = file.message_type.add(name=name)
        for i, (key, kind) in enumerate(fields.items(), 1):
            entry = message.field.add(name=key, number=i, label=field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                entry.type, entry.type_name = field.TYPE_MESSAGE, kind
            else:
                entry.type = kind
            if key == "allowed_batch_sizes":
                entry.label = field.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"configs.{name}"))
        for name in ("Batching", "Monitoring")
    ]


def test_models_are_named_once_and_lie_where_they_are_mounted():
    config = read("models.config", model_server_config_pb2.ModelServerConfig())
    models = config.model_config_list.config
    assert [model.name for model in models] == ["emoji"]
    for model in models:
        assert model.model_platform == "tensorflow"
        assert model.base_path == f"/models/{model.name}"
        assert model.model_version_policy.latest.num_versions > 0


def test_batches_are_of_rising_sizes_and_the_last_is_the_largest():
    config = read("batching.config", messages()[0]())
    sizes = list(config.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == config.max_batch_size.value
    # Those that exported models fill their rows up to; clients send as many at most.
    assert sizes == list(ROW_SIZES)
    assert sizes[-1] == ROWS_PER_REQUEST
    assert config.num_batch_threads.value >= 1
    assert config.batch_timeout_micros.value > 0


def test_metrics_are_on():
    config = read("monitoring.config", messages()[1]())
    assert config.prometheus_config.enable
    assert config.prometheus_config.path == "/monitoring/prometheus/metrics"


def test_compose_mounts_what_is_there_and_names_what_it_mounts():
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    (service,) = yaml.safe_load(text)["services"].values()
    assert service["image"].split(":")[0] == "tensorflow/serving"
    mounted = {}
    for volume in service["volumes"]:
        source, target, mode = volume.split(":")
        assert (FOLDER / source).resolve().exists(), source
        assert mode == "ro"
        mounted[target] = (FOLDER / source).resolve()
    for word in service["command"]:
        flag, _, value = word.partition("=")
        assert flag.startswith("--")
        if flag.endswith("_file"):
            assert value in mounted, word
    config = read("models.config", model_server_config_pb2.ModelServerConfig())
    for model in config.model_config_list.config:
        versions = [p.name for p in mounted[model.base_path].iterdir()]
        assert any(name.isdecimal() for name in versions)
    # Nobody but this machine is meant to draw with it.
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
