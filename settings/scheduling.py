"""Where chains are carried out, and how phases share GPUs and processors."""

from typing import Annotated

from pydantic import Field, StringConstraints

from settings.group import Group

DeploymentName = Annotated[str, StringConstraints(pattern=r"^([^/{}]+/([^/{}]|\{dataset\})+)?$")]


class SchedulingSettings(Group):
    """Chains on workers, and admission to GPUs; no result depends on it."""

    chain_deployment: DeploymentName = Field(
        default="",
        description="Prefect deployment that carries out a dataset's chain, as `flow/deployment`; "
        "`{dataset}` in it stands for the dataset: `dataset-chain/{dataset}`, or `dataset-chain/any` for "
        "all. All chains then go on at once on the workers of its pool. Empty: one after another, in the "
        "process that made the plan.",
    )
    host: str = Field(
        default="",
        description="Name of this machine in the limits of its processors; empty: its host name. A container "
        "is given that of its node.",
    )
    vram_headroom_mib: int = Field(
        default=512,
        ge=0,
        description="VRAM of each GPU that phases leave to the driver and to others, MiB; read when the "
        "limits of a machine are made.",
    )
    cuda_context_mib: int = Field(
        default=768,
        ge=0,
        description="VRAM that a training process takes besides its tensors (CUDA context, libraries), MiB.",
    )
    patience_s: float = Field(
        default=600.0,
        ge=0.0,
        description="Seconds that a phase waits for room before smaller ones no longer overtake it; those of "
        "priority datasets are never overtaken.",
    )
