"""How large the models and batches of the training benchmark are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """One set-up of the benchmark. The body is that of the paper's Table 9, of other sizes on a CPU."""

    layers: int
    width: int
    hidden: int  # of the MLP
    vocabulary: int
    sequence_length: int
    rows: int  # of the global batch
    num_micro_batches: int  # into which the accumulated runs split it
    num_domains: int
    rounds: int  # of interleaved pairs
    steps_per_turn: int  # one step is too short on a GPU: it begins with an idle device
    loss_shape: tuple[int, int]  # B, T of the token losses
    loss_vocabulary: int
    loss_width: int
    loss_rounds: int
    bookkeeping_domains: tuple[int, ...]
    bookkeeping_row_length: int
    bf16: bool = False
    compile_backend: str | None = None

    @property
    def tokens_per_step(self) -> int:
        """Of the global batch."""
        return self.rows * self.sequence_length

    @property
    def matmul_parameters(self) -> int:
        """Parameters that every token is multiplied with: attention, MLP and the tied head."""
        per_layer = 4 * self.width**2 + 2 * self.width * self.hidden
        return self.layers * per_layer + self.vocabulary * self.width

    @property
    def training_flops_per_token(self) -> int:
        """Forward and backward, without any recomputation: 6 for each parameter, and attention as if not causal."""
        return 6 * self.matmul_parameters + 12 * self.layers * self.width * self.sequence_length


SIZES = {
    "cpu": Sizes(
        layers=4,
        width=256,
        hidden=1024,
        vocabulary=8192,
        sequence_length=256,
        rows=10,
        num_micro_batches=5,
        num_domains=8,
        rounds=9,
        steps_per_turn=1,
        loss_shape=(32, 256),
        loss_vocabulary=50_257,
        loss_width=256,
        loss_rounds=3,
        bookkeeping_domains=(22, 1000),
        bookkeeping_row_length=1024,
    ),
    # The 280M row of Table 9 with a vocabulary of 50k: 124M parameters. 50,257 is rounded up to a multiple of 64:
    # with an odd row length of the logits, tensor cores work at a fraction of their speed.
    "gpu": Sizes(
        layers=12,
        width=768,
        hidden=3072,
        vocabulary=50_304,
        sequence_length=1024,
        rows=32,
        num_micro_batches=4,
        num_domains=22,
        rounds=11,
        steps_per_turn=10,
        loss_shape=(8, 1024),
        loss_vocabulary=50_257,
        loss_width=768,
        loss_rounds=11,
        bookkeeping_domains=(22, 1000),
        bookkeeping_row_length=1024,
        bf16=True,
        compile_backend="inductor",
    ),
    # Every line of the others in seconds, on a CPU: what the tests run. The figures mean nothing.
    "tiny": Sizes(
        layers=2,
        width=64,
        hidden=96,
        vocabulary=131,
        sequence_length=16,
        rows=4,
        num_micro_batches=2,
        num_domains=3,
        rounds=2,
        steps_per_turn=2,
        loss_shape=(4, 16),
        loss_vocabulary=131,
        loss_width=64,
        loss_rounds=2,
        bookkeeping_domains=(3, 5),
        bookkeeping_row_length=16,
        bf16=True,
        compile_backend="eager",
    ),
}
