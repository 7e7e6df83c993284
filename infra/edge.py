"""CloudFront: `/` is the console, `/api/*` the API, `/gateway/realtime` the WebSocket. `/internal/*` has no route."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.gateway import STAGE_NAME, Gateway
from infra.http_api import HttpApi
from infra.secrets import Secrets
from infra.stage import Stage
from tidegate.domain.client_ip import ORIGIN_HEADER

#: Errors are not cached: one viewer's error must never be another viewer's answer.
_UNCACHED_ERRORS = (400, 403, 404, 405, 414, 500, 501, 502, 503, 504)

_TO_STAGE = f"""function handler(event) {{
  event.request.uri = '/{STAGE_NAME}';
  return event.request;
}}"""

_TO_CONSOLE = """function handler(event) {
  var uri = event.request.uri;
  if (uri.lastIndexOf('.') <= uri.lastIndexOf('/')) {
    event.request.uri = '/index.html';
  }
  return event.request;
}"""


class Edge(Construct):
    """One address for everything a browser needs."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        gateway: Gateway,
        http_api: HttpApi,
        secrets: Secrets,
        domain_name: str | None,
        certificate_arn: str | None,
    ) -> None:
        super().__init__(scope, construct_id)
        stack = cdk.Stack.of(self)
        removal = cdk.RemovalPolicy.DESTROY if stage.disposable else cdk.RemovalPolicy.RETAIN
        self.console = s3.Bucket(
            self,
            "Console",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            removal_policy=removal,
        )
        header = {ORIGIN_HEADER: secrets.origin.secret_value.unsafe_unwrap()}

        def api_origin(api_id: str) -> origins.HttpOrigin:
            return origins.HttpOrigin(
                f"{api_id}.execute-api.{stack.region}.{stack.url_suffix}",
                protocol_policy=cloudfront.OriginProtocolPolicy.HTTPS_ONLY,
                custom_headers=header,
            )

        uncached: dict[str, Any] = {
            "cache_policy": cloudfront.CachePolicy.CACHING_DISABLED,
            "origin_request_policy": cloudfront.OriginRequestPolicy.ALL_VIEWER_EXCEPT_HOST_HEADER,
            "viewer_protocol_policy": cloudfront.ViewerProtocolPolicy.HTTPS_ONLY,
        }
        certificate = (
            acm.Certificate.from_certificate_arn(self, "Certificate", certificate_arn) if certificate_arn else None
        )
        self.distribution = cloudfront.Distribution(
            self,
            "Distribution",
            comment=f"tidegate {stage.name}",
            default_root_object="index.html",
            domain_names=[domain_name] if domain_name else None,
            certificate=certificate,
            # With CloudFront's own certificate the TLS policy is fixed.
            minimum_protocol_version=cloudfront.SecurityPolicyProtocol.TLS_V1_2_2021 if certificate else None,
            http_version=cloudfront.HttpVersion.HTTP2_AND_3,
            default_behavior=cloudfront.BehaviorOptions(
                origin=origins.S3BucketOrigin.with_origin_access_control(self.console),
                viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
                response_headers_policy=cloudfront.ResponseHeadersPolicy.SECURITY_HEADERS,
                function_associations=[self._function("ToConsole", _TO_CONSOLE)],
            ),
            additional_behaviors={
                "/api/*": cloudfront.BehaviorOptions(
                    origin=api_origin(http_api.api.api_id),
                    allowed_methods=cloudfront.AllowedMethods.ALLOW_ALL,
                    **uncached,
                ),
                "/gateway/realtime": cloudfront.BehaviorOptions(
                    origin=api_origin(gateway.api.api_id),
                    function_associations=[self._function("ToStage", _TO_STAGE)],
                    **uncached,
                ),
            },
            error_responses=[
                cloudfront.ErrorResponse(http_status=status, ttl=cdk.Duration.seconds(0)) for status in _UNCACHED_ERRORS
            ],
        )

    def _function(self, construct_id: str, code: str) -> cloudfront.FunctionAssociation:
        function = cloudfront.Function(
            self,
            construct_id,
            code=cloudfront.FunctionCode.from_inline(code),
            runtime=cloudfront.FunctionRuntime.JS_2_0,
        )
        return cloudfront.FunctionAssociation(function=function, event_type=cloudfront.FunctionEventType.VIEWER_REQUEST)
