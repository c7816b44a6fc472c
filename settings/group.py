"""The base of every settings group."""

from pydantic import BaseModel, ConfigDict


class Group(BaseModel):
    """A frozen group of settings; unknown fields are refused so that a typo never passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
