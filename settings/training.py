"""How models are trained: optimisation, distillation, curriculum and the fusion agent's learning."""

from typing import Literal

from pydantic import Field

from settings.group import Group


class DistillationSettings(Group):
    """Teacher to student (Hinton et al., arXiv 1503.02531, as used by KD-GAT, arXiv 2507.19686)."""

    temperature: float = Field(default=4.0, gt=0.0, description="Softens teacher and student classes.")
    alpha: float = Field(default=0.7, ge=0.0, le=1.0, description="Weight of the distillation loss.")


class CurriculumSettings(Group):
    """Batch = (1-p) balanced + p natural + hard, p = 1 - exp(-t/tau)."""

    tau_epochs: float = Field(default=3.0, gt=0.0, description="Epochs after which p is 1 - 1/e.")
    hard_fraction: float = Field(
        default=0.2, ge=0.0, lt=1.0, description="Share added of windows with the highest VGAE error."
    )


class DqnSettings(Group):
    """Learning of the fusion agent; every window is its own episode, so gamma is 0."""

    episodes: int = Field(default=30, ge=1, description="Passes over the training windows.")
    batch_size: int = Field(default=256, ge=2, description="Transitions per update.")
    replay_capacity: int = Field(default=50_000, ge=1, description="Transitions kept.")
    epsilon_start: float = Field(default=0.2, ge=0.0, le=1.0, description="First exploration rate.")
    epsilon_end: float = Field(default=0.01, ge=0.0, le=1.0, description="Last exploration rate.")
    epsilon_decay: float = Field(default=0.995, gt=0.0, le=1.0, description="Factor per update.")
    num_actions: int = Field(default=21, ge=2, description="Weights a in [0, 1] to choose from.")


class TrainingSettings(Group):
    """Optimisation shared by all phases."""

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where to train.")
    mixed_precision: bool = Field(default=True, description="bf16 or scaled fp16 on GPUs; fp32 on CPUs.")
    epochs: int = Field(default=10, ge=1, description="Most epochs of a model.")
    patience: int = Field(
        default=3, ge=1, description="Epochs without a better validation loss before stopping."
    )
    batch_size: int = Field(default=4096, ge=2, description="Graphs per optimizer step, at most.")
    micro_batch_size: int = Field(
        default=0,
        ge=0,
        description="Graphs per forward/backward; 0 means `batch_size`. Results do not depend on it.",
    )
    min_steps_per_epoch: int = Field(
        default=50, ge=1, description="The batch is made smaller until an epoch has this many steps."
    )
    lr: float = Field(default=1e-3, gt=0.0, description="AdamW learning rate.")
    weight_decay: float = Field(default=1e-4, ge=0.0, description="AdamW weight decay.")
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0, description="Dropout of the attention layers.")
    seed: int = Field(default=0, ge=0, description="Seed of weights, batches and exploration.")
    num_threads: int = Field(default=0, ge=0, description="CPU threads of torch; 0 means all cores.")
    deterministic: bool = Field(
        default=False,
        description="Only deterministic CUDA kernels: the same GPU gives the same bits, a little slower.",
    )
    keep_checkpoints: int = Field(default=2, ge=1, description="Checkpoints kept per model and phase.")
    checkpoint_interval_s: float = Field(
        default=10.0,
        ge=0.0,
        description="Least time between checkpoints, seconds: the most work that is lost; 0 is every step.",
    )
    adaptive_optimization: bool = Field(
        default=True, description="Whether workers and prefetch are adjusted while training goes on."
    )
    target_gpu_utilization: float = Field(
        default=0.85, gt=0.0, le=1.0, description="Below it, and with RAM to spare, input is sped up."
    )
    max_ram_usage: float = Field(
        default=0.80, gt=0.0, le=1.0, description="Share of RAM in use above which input is slowed down."
    )
    adaptive_adjustment_interval: int = Field(
        default=50, ge=1, description="Batches between adjustments of the input."
    )
    target_memory_usage: float = Field(
        default=0.87,
        gt=0.0,
        le=1.0,
        description="Share of the free memory (VRAM; RAM on CPUs) that a pack may fill by measurement.",
    )
    max_retries: int = Field(
        default=2,
        ge=0,
        description="Retries in a row of a phase that makes no progress (writes no checkpoint) between its "
        "failures, where a retry can cure them; a lack of memory is tried again as long as less can be asked "
        "for. 0 is no retries at all.",
    )
    distillation: DistillationSettings = Field(default_factory=DistillationSettings)
    curriculum: CurriculumSettings = Field(default_factory=CurriculumSettings)
    dqn: DqnSettings = Field(default_factory=DqnSettings)
