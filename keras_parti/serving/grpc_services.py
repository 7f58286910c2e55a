"""TensorFlow Serving's two gRPC services, over `Protocol`, with health and reflection.

Health is that of `grpc.health.v1`, for load balancers and Kubernetes; by reflection
tools such as `grpcurl` know the messages without their definitions.
"""

import functools
import logging

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    model_service_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)

from keras_parti.serving.refusals import CODES, describe

SERVICES = [
    prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
]


def add_services(server, protocol):
    """Adds all services to a gRPC server.

    Args:
        server: `grpc.Server`.
        protocol: `Protocol`, ready to answer.

    Returns:
        The health service, which says SERVING from the start of the server.
    """
    # gRPC logs a traceback for each request that is no message: anyone who reaches the
    # port could fill the disk with them. Their sender is told; that is enough.
    logging.getLogger("grpc._common").setLevel(logging.CRITICAL)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(protocol), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(protocol), server
    )
    state = health.HealthServicer()
    for name in ("", *SERVICES):
        state.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    names = [*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
    return state


def answering(method):
    """Turns the errors of a method into gRPC's."""

    @functools.wraps(method)
    def handle(self, request, context):
        try:
            return method(self, request, context)
        except Exception as error:
            code, words = describe(error)
        context.abort(CODES.get(code, grpc.StatusCode.UNKNOWN), words)

    return handle


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Runs signatures and describes them; has no classifiers and no regressors."""

    def __init__(self, protocol):
        self._protocol = protocol

    @answering
    def Predict(self, request, context):
        # A call ends for gRPC when its deadline passes or its client is gone.
        return self._protocol.predict(request, lambda: not context.is_active())

    @answering
    def GetModelMetadata(self, request, context):
        return self._protocol.metadata(request)

    @answering
    def Classify(self, request, context):
        return self._protocol.classify(request)

    @answering
    def Regress(self, request, context):
        return self._protocol.regress(request)

    @answering
    def MultiInference(self, request, context):
        return self._protocol.multi_inference(request)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Says which versions are there, and changes what is served."""

    def __init__(self, protocol):
        self._protocol = protocol

    @answering
    def GetModelStatus(self, request, context):
        return self._protocol.status(request)

    @answering
    def HandleReloadConfigRequest(self, request, context):
        return self._protocol.reload(request)
