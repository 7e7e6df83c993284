"""CloudFront: pages and their files from a bucket, `/api/*` the API, `/gateway/realtime` the WebSocket.

`/internal/*` has no route. `make deploy` uploads the pages: see `ops/pages.py`.
"""

from __future__ import annotations

import json
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_route53_targets as targets
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra import pages
from infra.gateway import STAGE_NAME, Gateway
from infra.http_api import HttpApi
from infra.retention import data_of
from infra.secrets import Secrets
from infra.stage import Stage
from tidegate.domain.client_ip import ORIGIN_HEADER

#: Errors are not cached: one viewer's error must never be another viewer's answer.
_UNCACHED_ERRORS = (400, 403, 404, 405, 414, 500, 501, 502, 503, 504)

_TO_STAGE = f"""function handler(event) {{
  event.request.uri = '/{STAGE_NAME}';
  return event.request;
}}"""

#: As `pages.file_of`.
_TO_PAGE = """function handler(event) {
  var uri = event.request.uri;
  var viewer = PATHS;
  if (viewer.some(function (path) { return uri.startsWith(path); })) {
    event.request.uri = '/viewer.html';
  } else if (uri.lastIndexOf('.') <= uri.lastIndexOf('/')) {
    event.request.uri = '/index.html';
  }
  return event.request;
}""".replace("PATHS", json.dumps([path.removesuffix("*") for path in pages.VIEWER_PATHS]))


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
    ) -> None:
        super().__init__(scope, construct_id)
        stack = cdk.Stack.of(self)
        removal = data_of(stage)
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
        to_page = self._function("ToPage", _TO_PAGE)
        # CloudFront is one for all regions of an account: a name has to tell regions apart too.
        access = cloudfront.S3OriginAccessControl(
            self, "PagesAccess", origin_access_control_name=f"tidegate-{stage.name}-{stack.region}"
        )
        pages_origin = origins.S3BucketOrigin.with_origin_access_control(self.console, origin_access_control=access)

        def page_behavior(construct_id: str, *, viewer: bool) -> cloudfront.BehaviorOptions:
            return cloudfront.BehaviorOptions(
                origin=pages_origin,
                viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
                response_headers_policy=self._headers(construct_id, stage, viewer=viewer),
                function_associations=[to_page],
            )

        viewer_pages = page_behavior("ViewerHeaders", viewer=True)
        place = stage.place
        certificate = None
        if place.certificate is not None:
            certificate = acm.Certificate.from_certificate_arn(self, "Certificate", place.certificate)
        self.distribution = cloudfront.Distribution(
            self,
            "Distribution",
            comment=f"tidegate {stage.name}",
            default_root_object="index.html",
            domain_names=[place.domain] if place.domain else None,
            certificate=certificate,
            web_acl_id=place.web_acl,
            # With CloudFront's own certificate the TLS policy is fixed.
            minimum_protocol_version=cloudfront.SecurityPolicyProtocol.TLS_V1_2_2021 if certificate else None,
            http_version=cloudfront.HttpVersion.HTTP2_AND_3,
            default_behavior=page_behavior("ConsoleHeaders", viewer=False),
            additional_behaviors={
                **dict.fromkeys(pages.VIEWER_PATHS, viewer_pages),
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
        if place.domain and place.hosted_zone:
            self._records(place.domain, place.hosted_zone)

    def _records(self, domain: str, zone_id: str) -> None:
        """The name's addresses, of both kinds. They are aliases, which cost nothing to ask for."""
        zone = route53.HostedZone.from_hosted_zone_id(self, "Zone", zone_id)
        target = route53.RecordTarget.from_alias(targets.CloudFrontTarget(self.distribution))
        for record in (route53.ARecord, route53.AaaaRecord):
            # With a dot at its end the name is whole, so that nobody has to tell the zone's own.
            record(self, record.__name__, zone=zone, record_name=f"{domain}.", target=target)

    @property
    def resource(self) -> cdk.CfnResource:
        """The distribution, for what is to come after it."""
        found = self.distribution.node.default_child
        assert isinstance(found, cdk.CfnResource)
        return found

    def _headers(self, construct_id: str, stage: Stage, *, viewer: bool) -> cloudfront.ResponseHeadersPolicy:
        """The headers that `pages` names, and a year of HTTPS only. `Cache-Control` is the file's own."""
        policy = pages.content_security_policy(viewer=viewer, ancestors=stage.settings.console_frame_ancestors)
        seen = {"X-Content-Type-Options", "Referrer-Policy"}
        custom = [
            cloudfront.ResponseCustomHeader(header=name, value=value, override=True)
            for name, value in pages.FIXED_HEADERS.items()
            if name not in seen
        ]
        return cloudfront.ResponseHeadersPolicy(
            self,
            construct_id,
            response_headers_policy_name=f"tidegate-{stage.name}-{construct_id}-{cdk.Stack.of(self).region}",
            security_headers_behavior=cloudfront.ResponseSecurityHeadersBehavior(
                content_security_policy=cloudfront.ResponseHeadersContentSecurityPolicy(
                    content_security_policy=policy, override=True
                ),
                content_type_options=cloudfront.ResponseHeadersContentTypeOptions(override=True),
                referrer_policy=cloudfront.ResponseHeadersReferrerPolicy(
                    referrer_policy=cloudfront.HeadersReferrerPolicy.NO_REFERRER, override=True
                ),
                strict_transport_security=cloudfront.ResponseHeadersStrictTransportSecurity(
                    access_control_max_age=cdk.Duration.days(365), override=True
                ),
            ),
            custom_headers_behavior=cloudfront.ResponseCustomHeadersBehavior(custom_headers=custom),
        )

    def _function(self, construct_id: str, code: str) -> cloudfront.FunctionAssociation:
        function = cloudfront.Function(
            self,
            construct_id,
            code=cloudfront.FunctionCode.from_inline(code),
            runtime=cloudfront.FunctionRuntime.JS_2_0,
        )
        return cloudfront.FunctionAssociation(function=function, event_type=cloudfront.FunctionEventType.VIEWER_REQUEST)
