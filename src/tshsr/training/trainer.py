"""Training loop: steps, evaluations and saves of one run."""

from __future__ import annotations

import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tshsr.config.run import LossConfig, OptimiserConfig, RunConfig
from tshsr.data.dataset import Split
from tshsr.data.layouts import select_images
from tshsr.data.text import Tokenizer
from tshsr.data.tokens import CaptionTokenizer, TokenIds
from tshsr.evaluation.run import evaluate_scores
from tshsr.files import explained
from tshsr.knowledge.graph import ConceptGraph
from tshsr.metrics.report import Report
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher, without_vision
from tshsr.models.concepts import ConceptVectors
from tshsr.models.encoders import GruWordEncoder, TunedWordEncoder
from tshsr.pretrained.vision import VisionEncoder
from tshsr.pretrained.word_vectors import WordVectors
from tshsr.scoring.all_pairs import score_split
from tshsr.scoring.options import ScoringOptions
from tshsr.scoring.processes import Processes
from tshsr.training.batching import Order, Reader, TrainingBatch, derived_seed, prefetch
from tshsr.training.events import Evaluated, Listener, Saved, Scoring, StepDone, VectorsLoaded, Warned
from tshsr.training.exchange import sum_gradients
from tshsr.training.hard_captions import Swapped, WordSwaps
from tshsr.training.log import Journal
from tshsr.training.memory import memory_explained, smaller_steps
from tshsr.training.noisy_pairs import NoisyPairWeights
from tshsr.training.objective import Objective
from tshsr.training.pixels import PictureBatches, PixelLoader
from tshsr.training.stability import CollapseWatch, chance_rsum, check_finite
from tshsr.training.state import BEST, LAST, State, load_last, load_match_zscores, save_best, save_last

DEV_SCORES = ".dev-scores.partial"
"""Folder of the scores of dev while several processes evaluate; `remove_partial` removes that of a killed run."""


def learning_rate(config: OptimiserConfig, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """Learning rate of a step.

        step       rate * (1 before `decay_epoch`, `decay` from it on)
        cosine     rate * (1 + cos(pi * epoch / epochs)) / 2
        constant   rate

    with epoch = step / steps_per_epoch, multiplied by (step + 1) / warmup_steps during the first `warmup_steps`.

    Args:
        config: Rate and schedule.
        step: 0-based.
        epochs: Epochs of the whole run.
    """
    epoch = step / steps_per_epoch
    match config.schedule:
        case "step":
            factor = config.decay if epoch >= config.decay_epoch else 1.0
        case "cosine":
            factor = (1 + math.cos(math.pi * epoch / epochs)) / 2
        case "constant":
            factor = 1.0
        case _:
            assert_never(config.schedule)
    rise = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return config.learning_rate * factor * rise


def uses_hardest(config: LossConfig, step: int, *, steps_per_epoch: int) -> bool:
    """Whether the hinge of a step (0-based) uses the hardest negative (after the warm-up) or the mean over all."""
    return step / steps_per_epoch >= config.warmup_epochs


def uses_relations(config: LossConfig, step: int, *, steps_per_epoch: int) -> bool:
    """Whether a step (0-based) has the losses of `loss.relations`."""
    return config.relations > 0 and step / steps_per_epoch >= config.relations_warmup_epochs


@dataclass(frozen=True)
class TrainingInputs:
    """Checked inputs of a training run.

    Attributes:
        config: The settings, completed from the data.
        dev: Split that chooses the best weights.
        vectors: Word vectors that the embedding of a new run starts from.
        vision: The vision network, in training from pixels.
        graph: The concept graph that a new run starts from.
    """

    config: RunConfig
    tokenizer: CaptionTokenizer
    train: Split
    dev: Split
    folder: Path
    vectors: WordVectors | None = None
    vision: VisionEncoder | None = None
    graph: ConceptGraph | None = None


class Trainer:
    """Training from a saved or initial state to the end of the run.

    Args:
        order: Captions of each batch.
        accelerator: Devices, precision and processes.
        listen: Called with events on the main process.

    Attributes:
        stopping: Whether to save and stop after the current step.
    """

    def __init__(
        self, inputs: TrainingInputs, order: Order, state: State, accelerator: Accelerator, listen: Listener
    ) -> None:
        self.inputs, self.order, self.state, self.accelerator, self.listen = inputs, order, state, accelerator, listen
        self.config = inputs.config
        self.processes = processes_of(accelerator)
        self.reader = Reader(inputs.train, inputs.tokenizer)
        self.dev = select_dev(inputs.dev, self.config.training.dev_images)
        torch.manual_seed(derived_seed(self.config.training.seed))
        self.matcher = build_matcher(without_vision(self.config.model))
        self.matcher.vision = inputs.vision
        self.matcher.to(accelerator.device)
        self.optimiser = make_optimiser(self.config.optimiser, self.matcher)
        objective = Objective(self.matcher, self.config.loss, self.config.training.candidates, self.processes)
        # Without DistributedDataParallel, which averages gradients: here they are summed (`exchange.sum_gradients`).
        self.objective = accelerator.prepare_model(objective, evaluation_mode=True)
        self.stepper = accelerator.prepare_optimizer(self.optimiser)
        self.collapse_watch = CollapseWatch(self.config.loss, self.config.optimiser, state.flat_steps)
        self.pair_weights = NoisyPairWeights(self.config, self.reader) if self.config.loss.robust != "none" else None
        tokens = self.reader.tokens
        self.swaps = WordSwaps(tokens.rows()) if self.config.loss.swapped and isinstance(tokens, TokenIds) else None
        self.pixels = make_pixel_loader(inputs)
        self.journal: Journal | None = None
        self.stopping: Callable[[], bool] = lambda: False

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return self.order.steps_per_epoch * self.config.training.epochs

    @property
    def kept(self) -> str:
        """A clause for errors: where the saved state is."""
        return f"{self.inputs.folder / LAST} keeps the last complete state"

    def _stops(self) -> bool:
        """Whether any of the processes was asked to stop."""
        asked = torch.tensor(float(self.stopping()), device=self.processes.device)
        return bool(self.processes.largest(asked))

    def begin(self) -> None:
        """Load pretrained weights and save the initial state.

        The run is resumable from here on, and a full disk is reported before training.
        """
        for module in self.matcher.modules():
            if isinstance(module, TunedWordEncoder):
                module.load_pretrained()
            elif isinstance(module, GruWordEncoder) and self.inputs.vectors is not None:
                module.load_vectors(self.inputs.vectors)
                self._report_vectors(self.inputs.vectors)
            elif isinstance(module, ConceptVectors) and self.inputs.graph is not None:
                module.load_graph(self.inputs.graph)
        self._save()

    def _report_vectors(self, vectors: WordVectors) -> None:
        """Send the event of word vectors."""
        tokenizer, tokens = self.inputs.tokenizer, self.reader.tokens
        if self.accelerator.is_main_process and isinstance(tokenizer, Tokenizer) and isinstance(tokens, TokenIds):
            ends = 2 * tokenizer.ends * len(tokens)
            covered = int(np.isin(tokens.ids, [*vectors.rows]).sum()) / (len(tokens.ids) - ends)
            self.listen(VectorsLoaded(vectors.file, len(vectors.rows), len(tokenizer.word_ids()), covered))

    def resume(self) -> None:
        """Load weights, optimiser, scaler and pair weights from the folder; warn of another number of threads."""
        load_last(self.inputs.folder, self.matcher, self.optimiser)
        if self.pair_weights is not None:
            self.pair_weights.restore(load_match_zscores(self.inputs.folder, captions=self.order.captions))
        if self.accelerator.scaler is not None and self.state.scaler:
            self.accelerator.scaler.load_state_dict(self.state.scaler)
        before, now = self.state.threads, torch.get_num_threads()
        if before not in (0, now) and self.accelerator.device.type == "cpu" and self.accelerator.is_main_process:
            self.listen(
                Warned(
                    f"The number of threads was {before} and is {now} now: the weights will differ in their last bits "
                    f"from those of a run without an interruption. For the same ones set OMP_NUM_THREADS to {before}."
                )
            )

    def run(self) -> State:
        """Train to the end.

        Raises:
            CollapseError: Where the network gives all pairs the same score for more than an epoch.
            DivergenceError: Where the loss or its gradient is not finite.
            DataError: Where the data can't be read or the folder can't be written.
        """
        if self.accelerator.is_main_process:
            self.journal = Journal(self.inputs.folder, self.state.step, self.state.window)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="PIL")  # irregularities of pictures that can be decoded
                for epoch in range(self.state.step // self.order.steps_per_epoch, self.config.training.epochs):
                    self._epoch(epoch)
                    if self._stops():
                        break
        finally:
            if self.pixels is not None:
                self.pixels.close()
            if self.journal is not None:
                self.journal.close()
        return self.state

    def _epoch(self, epoch: int) -> None:
        """One epoch, or the rest of it (0-based here, from 1 in logs and events)."""
        per_epoch, every = self.order.steps_per_epoch, self.config.training.save_every_steps
        if self.pair_weights is not None and self.state.step == epoch * per_epoch:
            # Groups of a fixed size are encoded whole, so that no setting of batches helps.
            less = f"lower model.encoder.dim (now {self.config.model.encoder.dim}) or set loss.robust to none"
            with memory_explained("weighing the training pairs", less, self.kept):
                self.pair_weights.update(self.matcher, self.processes, epoch)
        numbers = self.order.steps(epoch, first=self.state.step - epoch * per_epoch)
        self.objective.train()
        with (
            closing(prefetch(self._batches(epoch, numbers))) as steps,
            memory_explained("a step of training", smaller_steps(self.config.training), self.kept),
        ):
            for batches in steps:
                self._step(epoch, batches)
                if self._stops() and self.state.step % per_epoch:
                    self._save()
                    return
                if every and self.state.step % every == 0 and self.state.step % per_epoch:
                    self._save()
        last = epoch + 1 == self.config.training.epochs
        if last or (epoch + 1) % self.config.training.evaluate_every == 0:
            less = f"set training.dev_images below {len(self.dev.regions)}"
            with memory_explained("the evaluation on dev", less, self.kept):
                self._evaluate(epoch + 1)
        self._save()

    def _batches(self, epoch: int, numbers: Iterator[list[np.ndarray]]) -> Iterator[list[TrainingBatch]]:
        """This process's share of the batches of steps: pixels, or stored regions."""
        if self.pixels is not None:
            return self.pixels.steps(epoch, numbers, self.reader, self.processes)
        return ([self.reader.read(captions, processes=self.processes) for captions in step] for step in numbers)

    def _step(self, epoch: int, batches: list[TrainingBatch]) -> None:
        """One optimiser step: learning rate, gradients, checks, log and events."""
        started, number, per_epoch = time.perf_counter(), self.state.step, self.order.steps_per_epoch
        rate = learning_rate(
            self.config.optimiser, number, steps_per_epoch=per_epoch, epochs=self.config.training.epochs
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        hardest = uses_hardest(self.config.loss, number, steps_per_epoch=per_epoch)
        related = uses_relations(self.config.loss, number, steps_per_epoch=per_epoch)
        losses = self._optimise(batches, hardest=hardest, related=related)
        check_finite(
            losses["loss"],
            losses["gradient_norm"],
            where=f"epoch {epoch + 1}, step {number + 1}",
            kept=self.kept,
            rate=rate,
        )
        seconds = time.perf_counter() - started
        warning = self.collapse_watch.step(losses["spread"], hardest=hardest)
        self.state = replace(self.state, step=number + 1, seconds=self.state.seconds + seconds)
        self._report_step(epoch, losses, rate, seconds, warning)

    def _report_step(
        self, epoch: int, losses: dict[str, float], rate: float, seconds: float, warning: str | None
    ) -> None:
        """Log a step and send its events."""
        if self.journal is None:
            return
        step = self.state.step
        values = {**losses, "learning_rate": rate}
        ends = step % self.order.steps_per_epoch == 0
        self.journal.step(epoch + 1, step, values, epoch_ends=ends, seconds=self.state.seconds)
        self.listen(StepDone(epoch + 1, step, self.steps, losses, rate, seconds))
        if warning is not None:
            self.listen(Warned(warning))

    def _optimise(self, batches: list[TrainingBatch], *, hardest: bool, related: bool) -> dict[str, float]:
        """Accumulate gradients over a step's batches, clip and update; returns the mean losses of the batches."""
        parts, norm = [], torch.zeros(())
        names: list[str] = []
        for number, batch in enumerate(batches):
            # Candidates and swaps depend only on seed and step, dropout also on the process, so that resuming needs no
            # generator state.
            seeds = (self.config.training.seed, self.state.step, number)
            torch.manual_seed(derived_seed(*seeds, self.processes.index))
            seed = derived_seed(*seeds, 0)
            on_device = batch.to(self.accelerator.device)
            with self.accelerator.accumulate(self.objective):
                losses = self.objective(
                    on_device.images,
                    on_device.captions,
                    on_device.image_of_caption,
                    hardest=hardest,
                    related=related,
                    seed=seed,
                    total_images=batch.total_images,
                    weights=self._weights(batch),
                    swapped=self._swapped(batch, seed),
                )
                self.accelerator.backward(losses["loss"])
                if self.accelerator.sync_gradients:
                    sum_gradients(self.matcher.parameters(), self.processes)
                    norm = self.accelerator.clip_grad_norm_(self.matcher.parameters(), self.config.optimiser.clip)
                self.stepper.step()
                self.stepper.zero_grad()
            names = list(losses)
            parts.append(torch.stack([value.detach().float() for value in losses.values()]))
        means = torch.stack(parts).mean(dim=0)  # all processes have the losses of the whole batch
        norm = checked_norm(norm, self.accelerator.scaler)
        return {**dict(zip(names, means.tolist(), strict=True)), "gradient_norm": float(norm)}

    def _weights(self, batch: TrainingBatch) -> Tensor | None:
        """Weights of the batch's pairs; None without a robust loss."""
        return None if self.pair_weights is None else self.pair_weights.of(batch.numbers).to(self.accelerator.device)

    def _swapped(self, batch: TrainingBatch, seed: int) -> Swapped | None:
        """The batch's captions with two words swapped; None if the loss has weight 0 or no caption allows a swap."""
        if self.swaps is None:
            return None
        swapped = self.swaps.of_batch(batch.captions, seed=seed, total=len(batch.numbers), processes=self.processes)
        return None if swapped is None else swapped.to(self.accelerator.device)

    def _evaluate(self, epoch: int) -> None:
        """Evaluate on dev, save the best weights, and stop a collapsed run."""
        report = self._report(epoch)
        rsum = self.processes.from_main(report.scores["fused"].rsum if report is not None else 0.0)
        best = self.state.best_epoch == 0 or rsum > self.state.best_rsum
        if best:
            self.state = replace(self.state, best_epoch=epoch, best_rsum=rsum)
        if report is not None and self.journal is not None:
            step = self.state.step
            self.journal.epoch(epoch, step, report, best=best, seconds=self.state.seconds)
            if best:
                save_best(self.inputs.folder, self.matcher, epoch=epoch, step=step, rsum=rsum)
                self.listen(Saved("best", step, self.inputs.folder / BEST))
            self.listen(Evaluated(epoch, report, best))
        chance = chance_rsum(self.dev.image_of_caption, len(self.dev.regions))
        self.collapse_watch.epoch(rsum, chance, steps_per_epoch=self.order.steps_per_epoch)

    def _report(self, epoch: int) -> Report | None:
        """Evaluate the current weights on dev; of several processes each scores its share, and the main one reports."""

        def progress(done: int, pairs: int) -> None:
            if self.processes.is_main:
                self.listen(Scoring(epoch, done, pairs))

        started = time.perf_counter()
        with self._place_for_scores() as folder:
            options = ScoringOptions(
                device=self.accelerator.device, folder=folder, progress=progress, processes=self.processes
            )
            scores = score_split(self.matcher, self.inputs.tokenizer, self.dev, options)
            if not self.processes.is_main:
                return None
            return evaluate_scores(
                scores,
                self.dev.image_of_caption,
                protocol="auto",
                data=self.dev.data,
                split=self.dev.name,
                models=[self.inputs.folder.name],
                seconds=time.perf_counter() - started,
            )

    @contextmanager
    def _place_for_scores(self) -> Iterator[Path | None]:
        """A folder in which several processes join their scores, removed afterwards; None for a single process."""
        if self.processes.count == 1:
            yield None
            return
        folder = self.inputs.folder / DEV_SCORES
        try:
            if self.processes.is_main:
                with explained(folder):
                    folder.mkdir()
            self.processes.wait()
            yield folder
        finally:
            if self.processes.is_main:
                shutil.rmtree(folder, ignore_errors=True)

    def _save(self) -> None:
        """Replace `last/`."""
        scaler = {} if self.accelerator.scaler is None else self.accelerator.scaler.state_dict()
        window = {} if self.journal is None else dict(self.journal.window)
        flat, threads = self.collapse_watch.flat_steps, torch.get_num_threads()
        self.state = replace(self.state, flat_steps=flat, window=window, scaler=scaler, threads=threads)
        if self.accelerator.is_main_process:
            zscores = None if self.pair_weights is None else self.pair_weights.zscores
            save_last(self.inputs.folder, self.matcher, self.optimiser, self.state, zscores)
            self.listen(Saved("last", self.state.step, self.inputs.folder / LAST))
        self.processes.wait()


def checked_norm(norm: Tensor, scaler: torch.amp.GradScaler | None) -> Tensor:
    """A gradient's norm, or 0 for an infinite one that fp16 explains: the scaler skips the step and lowers its scale.

    At a scale below 1 the gradient itself is infinite, step after step.
    """
    return norm if scaler is None or scaler.get_scale() < 1 else norm.nan_to_num(0, 0, 0)


def processes_of(accelerator: Accelerator) -> Processes:
    """The processes of a run."""
    return Processes(accelerator.process_index, accelerator.num_processes, accelerator.device)


def make_optimiser(config: OptimiserConfig, matcher: Matcher) -> torch.optim.Optimizer:
    """Optimiser of all trained parameters; the trainer sets its learning rates before every step."""
    groups = parameter_groups(config, matcher)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.Adam(groups, lr=config.learning_rate)


def parameter_groups(config: OptimiserConfig, matcher: Matcher) -> list[dict[str, Any]]:
    """The trained parameters by the factor of their learning rate: 1, and that of tuned pretrained networks.

    Each group has its `factor`. The order is part of a saved state: groups, and parameters as in the network.
    """
    tuned = [module.network for module in matcher.modules() if isinstance(module, TunedWordEncoder)]
    factors = {parameter: config.text_factor for network in tuned for parameter in network.parameters()}
    if matcher.vision is not None:
        rates = matcher.vision.rate_factors(config.vision_factor, config.vision_decay)
        factors |= {each: rates[name] for name, each in matcher.vision.named_parameters() if name in rates}
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for parameter in matcher.parameters():
        if parameter.requires_grad:
            groups.setdefault(factors.get(parameter, 1.0), []).append(parameter)
    return [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]


def make_pixel_loader(inputs: TrainingInputs) -> PixelLoader | None:
    """The loader of training pictures; None in training on stored features."""
    if inputs.vision is None:
        return None
    training, preprocessing = inputs.config.training, inputs.vision.design.preprocessing
    dataset = PictureBatches.of(inputs.train, preprocessing, training.augmentation, training.seed)
    return PixelLoader(dataset, training.workers)


def select_dev(dev: Split, images: int) -> Split:
    """The first `images` images of dev; 0 takes all."""
    return select_images(dev, images) if 0 < images < len(dev.regions) else dev
