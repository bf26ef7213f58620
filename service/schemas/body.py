"""The base of all request bodies, and how a schema says that one of several members is required."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

TEXT = {"type": "string"}
SUBJECT_IDS = ({"user_id": TEXT}, {"session_id": TEXT})


class Body(BaseModel):
    """Base of all request bodies: strict types, no unknown fields, no input echoed in errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def any_of(*alternatives: dict[str, Any]) -> ConfigDict:
    """Expresses in the JSON schema what a validator of the body checks: one of these members is given, and not null."""
    return ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": list(members), "properties": dict(members)} for members in alternatives]
        }
    )
