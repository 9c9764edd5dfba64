"""The loop: steps, evaluations and saves of one run."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

import torch
from accelerate import Accelerator

from tshsr.config.run import LossConfig, OptimiserConfig, RunConfig
from tshsr.data.dataset import Split
from tshsr.data.layouts import select_images
from tshsr.data.text import Tokenizer
from tshsr.evaluation.run import evaluate_scores
from tshsr.metrics.report import Report
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher
from tshsr.scoring.all_pairs import score_split
from tshsr.scoring.options import ScoringOptions
from tshsr.training.batching import Order, Reader, TrainingBatch, ahead, derived_seed
from tshsr.training.events import Evaluated, Listener, Saved, Scoring, StepDone, Warned
from tshsr.training.hard_captions import Swapped, WordSwaps
from tshsr.training.log import Journal
from tshsr.training.noisy_pairs import Believer
from tshsr.training.objective import Objective
from tshsr.training.stability import CollapseWatch, chance_rsum, check_finite
from tshsr.training.state import BEST, LAST, State, load_last, load_standings, save_best, save_last


def learning_rate(config: OptimiserConfig, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """The rate of one step.

        step       rate * (1 before `decay_epoch`, `decay` from it on)
        cosine     rate * (1 + cos(pi * epoch / epochs)) / 2
        constant   rate

    with epoch = step / steps_per_epoch, and all of it times (step + 1) / warmup_steps during the first `warmup_steps`.

    Args:
        config: Rate and schedule.
        step: Number of the step, from 0.
        steps_per_epoch: Steps of one pass.
        epochs: Passes of the whole run.
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


def hardest_counts(config: LossConfig, step: int, *, steps_per_epoch: int) -> bool:
    """Whether only the hardest negative counts in this step (from 0), or still the mean over all."""
    return step / steps_per_epoch >= config.warmup_epochs


@dataclass(frozen=True)
class Job:
    """What a trainer works on, complete and checked.

    Attributes:
        config: The settings, completed from the data.
        tokenizer: The tokenizer.
        train: Training split.
        dev: The images of dev that choose the best weights.
        folder: The run's folder.
    """

    config: RunConfig
    tokenizer: Tokenizer
    train: Split
    dev: Split
    folder: Path


class Trainer:
    """Trains from a state to the end of the run.

    Args:
        job: What to train.
        order: Which captions meet.
        state: Where to begin.
        accelerator: The engine.
        listen: Told what happens; on the main process only.
    """

    def __init__(self, job: Job, order: Order, state: State, accelerator: Accelerator, listen: Listener) -> None:
        self.job, self.order, self.state, self.accelerator, self.listen = job, order, state, accelerator, listen
        self.config = job.config
        self.reader = Reader(job.train, job.tokenizer)
        self.dev = select_dev(job.dev, self.config.training.dev_images)
        torch.manual_seed(derived_seed(self.config.training.seed))
        self.matcher = build_matcher(self.config.model).to(accelerator.device)
        self.optimiser = make_optimiser(self.config.optimiser, self.matcher)
        objective = Objective(self.matcher, self.config.loss, self.config.training.candidates)
        self.objective, self.stepper = accelerator.prepare(objective, self.optimiser)
        self.watch = CollapseWatch(self.config.loss, self.config.optimiser, state.flat_steps)
        self.believer = Believer(self.config, self.reader) if self.config.loss.robust != "none" else None
        self.swaps = WordSwaps(self.reader.captions()) if self.config.loss.swapped else None
        self.journal: Journal | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.order.steps_per_epoch * self.config.training.epochs

    def begin(self) -> None:
        """Keep the fresh state: from now on the folder holds a run (and a full disk shows before hours of work)."""
        self._save()

    def resume(self) -> None:
        """Take weights, optimiser and scaler from the folder."""
        load_last(self.job.folder, self.matcher, self.optimiser)
        if self.believer is not None:
            self.believer.take(load_standings(self.job.folder, captions=self.order.captions))
        if self.accelerator.scaler is not None and self.state.scaler:
            self.accelerator.scaler.load_state_dict(self.state.scaler)

    def run(self) -> State:
        """Train to the end.

        Raises:
            CollapseError: Where the network scores every pair alike for good.
            DivergenceError: Where the loss or its gradient is no finite number.
            DataError: Where the data can't be read or the folder not be written.
        """
        if self.accelerator.is_main_process:
            self.journal = Journal(self.job.folder, self.state.step, self.state.window)
        try:
            for epoch in range(self.state.step // self.order.steps_per_epoch, self.config.training.epochs):
                self._epoch(epoch)
        finally:
            if self.journal is not None:
                self.journal.close()
        return self.state

    def _epoch(self, epoch: int) -> None:
        """One pass, or what is left of it (epochs count from 0 here, from 1 in what is told)."""
        per_epoch, every = self.order.steps_per_epoch, self.config.training.save_every_steps
        if self.believer is not None and self.state.step == epoch * per_epoch:
            self.believer.measure(self.matcher, self.accelerator, epoch)
        numbers = self.order.steps(epoch, self.accelerator.process_index, first=self.state.step - epoch * per_epoch)
        self.objective.train()
        with closing(ahead([self.reader.read(captions) for captions in step] for step in numbers)) as steps:
            for batches in steps:
                self._step(epoch, batches)
                if every and self.state.step % every == 0 and self.state.step % per_epoch:
                    self._save()
        last = epoch + 1 == self.config.training.epochs
        if last or (epoch + 1) % self.config.training.evaluate_every == 0:
            self._evaluate(epoch + 1)
        self._save()

    def _step(self, epoch: int, batches: list[TrainingBatch]) -> None:
        """One step of the optimiser."""
        started, number, per_epoch = time.perf_counter(), self.state.step, self.order.steps_per_epoch
        rate = learning_rate(
            self.config.optimiser, number, steps_per_epoch=per_epoch, epochs=self.config.training.epochs
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        hardest = hardest_counts(self.config.loss, number, steps_per_epoch=per_epoch)
        losses = self._learn(batches, hardest=hardest)
        check_finite(
            losses["loss"],
            losses["gradient_norm"],
            where=f"epoch {epoch + 1}, step {number + 1}",
            kept=f"{self.job.folder / LAST} keeps the last whole state",
            rate=rate,
        )
        seconds = time.perf_counter() - started
        warning = self.watch.step(losses["spread"], hardest=hardest)
        self.state = replace(self.state, step=number + 1, seconds=self.state.seconds + seconds)
        self._tell_step(epoch, losses, rate, seconds, warning)

    def _tell_step(
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

    def _learn(self, batches: list[TrainingBatch], *, hardest: bool) -> dict[str, float]:
        """Gradients of a step's batches, clipped, and the optimiser's step; the losses' means over all processes."""
        parts, norm = [], torch.zeros(())
        names: list[str] = []
        for number, batch in enumerate(batches):
            # Dropout and candidates follow from the step alone: resuming needs no generator's state.
            seed = derived_seed(self.config.training.seed, self.state.step, number, self.accelerator.process_index)
            torch.manual_seed(seed)
            here = batch.to(self.accelerator.device)
            trust = None if self.believer is None else self.believer.trust(batch.numbers).to(self.accelerator.device)
            with self.accelerator.accumulate(self.objective):
                losses = self.objective(
                    here.images,
                    here.captions,
                    here.image_of_caption,
                    hardest=hardest,
                    seed=seed,
                    trust=trust,
                    swapped=self._swapped(batch, seed),
                )
                self.accelerator.backward(losses["loss"])
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.matcher.parameters(), self.config.optimiser.clip)
                self.stepper.step()
                self.stepper.zero_grad()
            names = list(losses)
            parts.append(torch.stack([value.detach().float() for value in losses.values()]))
        means = self.accelerator.reduce(torch.stack(parts).mean(dim=0), reduction="mean")
        # fp16 meets infinite gradients now and then, skips the step and lowers its scale: no reason to stop.
        norm = norm.nan_to_num(0, 0, 0) if self.accelerator.scaler is not None else norm
        return {**dict(zip(names, means.tolist(), strict=True)), "gradient_norm": float(norm)}

    def _swapped(self, batch: TrainingBatch, seed: int) -> Swapped | None:
        """The batch's captions with two words swapped, where the settings ask for them."""
        swapped = None if self.swaps is None else self.swaps.of_batch(batch.captions, seed=seed)
        return None if swapped is None else swapped.to(self.accelerator.device)

    def _evaluate(self, epoch: int) -> None:
        """Figures on dev by the main process; the best weights are kept, and collapse ends the run."""
        report = self._report(epoch) if self.accelerator.is_main_process else None
        rsum = self._from_main(report.scores["fused"].rsum if report is not None else 0.0)
        best = self.state.best_epoch == 0 or rsum > self.state.best_rsum
        if best:
            self.state = replace(self.state, best_epoch=epoch, best_rsum=rsum)
        if report is not None and self.journal is not None:
            step = self.state.step
            self.journal.epoch(epoch, step, report, best=best, seconds=self.state.seconds)
            if best:
                save_best(self.job.folder, self.matcher, epoch=epoch, step=step, rsum=rsum)
                self.listen(Saved("best", step, self.job.folder / BEST))
            self.listen(Evaluated(epoch, report, best))
        chance = chance_rsum(self.dev.image_of_caption, len(self.dev.regions))
        self.watch.epoch(rsum, chance, steps_per_epoch=self.order.steps_per_epoch)

    def _report(self, epoch: int) -> Report:
        """Score dev with the present weights."""
        started = time.perf_counter()
        scores = score_split(
            self.matcher,
            self.job.tokenizer,
            self.dev,
            ScoringOptions(
                device=self.accelerator.device,
                progress=lambda done, pairs: self.listen(Scoring(epoch, done, pairs)),
            ),
        )
        return evaluate_scores(
            scores,
            self.dev.image_of_caption,
            protocol="auto",
            data=self.dev.data,
            split=self.dev.name,
            models=[self.job.folder.name],
            seconds=time.perf_counter() - started,
        )

    def _from_main(self, value: float) -> float:
        """A number of the main process, on every process; the others wait here for it."""
        if self.accelerator.num_processes == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(shared, reduction="sum"))

    def _save(self) -> None:
        """Replace `last/`."""
        scaler = {} if self.accelerator.scaler is None else self.accelerator.scaler.state_dict()
        window = {} if self.journal is None else dict(self.journal.window)
        self.state = replace(self.state, flat_steps=self.watch.flat_steps, window=window, scaler=scaler)
        if self.accelerator.is_main_process:
            standings = None if self.believer is None else self.believer.standings
            save_last(self.job.folder, self.matcher, self.optimiser, self.state, standings)
            self.listen(Saved("last", self.state.step, self.job.folder / LAST))
        self.accelerator.wait_for_everyone()


def make_optimiser(config: OptimiserConfig, matcher: Matcher) -> torch.optim.Optimizer:
    """The optimiser over all weights; its rate is set before every step."""
    if config.name == "adamw":
        return torch.optim.AdamW(matcher.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.Adam(matcher.parameters(), lr=config.learning_rate)


def select_dev(dev: Split, images: int) -> Split:
    """The first so many images of dev; 0 takes all."""
    return select_images(dev, images) if 0 < images < len(dev.regions) else dev
