"""Makes the tables that `tidegate.tables` lists."""

from __future__ import annotations

from aws_cdk import aws_dynamodb as dynamodb
from constructs import Construct

from infra.retention import data_of
from infra.stage import Stage
from tidegate.tables import ALL_TABLES, TTL_ATTRIBUTE, Index, Key, Table

_TYPES = {
    "S": dynamodb.AttributeType.STRING,
    "N": dynamodb.AttributeType.NUMBER,
    "B": dynamodb.AttributeType.BINARY,
}


class Tables(Construct):
    """All tables of a stage."""

    def __init__(self, scope: Construct, construct_id: str, *, stage: Stage) -> None:
        super().__init__(scope, construct_id)
        self._tables = {table.name: self._make(table, stage) for table in ALL_TABLES}

    def of(self, table: Table) -> dynamodb.Table:
        return self._tables[table.name]

    def _make(self, table: Table, stage: Stage) -> dynamodb.Table:
        made = dynamodb.Table(
            self,
            table.name.title().replace("_", ""),
            partition_key=_attribute(table.partition),
            sort_key=_attribute(table.sort) if table.sort else None,
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            encryption=dynamodb.TableEncryption.AWS_MANAGED,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=table.backed_up and not stage.disposable
            ),
            time_to_live_attribute=TTL_ATTRIBUTE if table.ttl else None,
            stream=dynamodb.StreamViewType[table.stream] if table.stream else None,
            # Deletion protection is not here: a first creation that fails could not be rolled back. `make deploy`
            # switches it on when everything is there.
            removal_policy=data_of(stage),
        )
        for index in table.indexes:
            _add(made, index)
        return made


def _attribute(key: Key) -> dynamodb.Attribute:
    return dynamodb.Attribute(name=key.name, type=_TYPES[key.type])


def _add(table: dynamodb.Table, index: Index) -> None:
    projection = dynamodb.ProjectionType.INCLUDE if index.include else dynamodb.ProjectionType[index.projection]
    table.add_global_secondary_index(
        index_name=index.name,
        partition_key=_attribute(index.partition),
        sort_key=_attribute(index.sort) if index.sort else None,
        projection_type=projection,
        non_key_attributes=list(index.include) or None,
    )
