"""The stages in their order, each from what the ones before it left in the working folder.

autoencoder · pair · denoiser · wording · inpaint · xl. A stage's state file is its result once it holds the last step:
a stage that is done is loaded in a moment, one that was cut off goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from engine import tiny
from engine.tiny import scenes
from engine.tiny.drawings import Emoji
from engine.tiny.recipe import autoencoder, denoiser, inpaint, pair, previews, shipping, tokens, xl
from engine.tiny.recipe.fitting import Batch, Plan, fit

EXAMINED = 200
"""Pictures that the autoencoder is measured on, and its latents scaled by."""


class Recipe:
    """The weights of every base, made as far as they are asked for."""

    def __init__(
        self,
        emoji: Emoji,
        other_style: Emoji | None,
        work: Path,
        device: torch.device,
        share: float,
        say: Callable[[str], None],
    ):
        """other_style: drawings that only the autoencoder sees. share: of the usual steps."""
        self.painter = scenes.Painter(emoji)
        self.names = emoji.learned()
        self.work, self.device, self.share, self.say = work, device, share, say
        self._styles = [emoji, *([other_style] if other_style else [])]

    def make(self) -> None:
        """Everything, into `base`, `scorer`, `inpaint` and `xl` of the working folder."""
        self.say(f"{len(self.names)} emoji, {self.device}")
        shipping.scorer(self.work / "scorer", self.pair, self.names)
        shipping.base(self.work / "base", self.tokenizer, self.vae, self.denoiser.text, self.denoiser.unet)
        previews.draw(self.work / "base", self.names, self.work / "base.png")
        shipping.inpaint(self.work / "inpaint", self.inpainter.unet)
        shipping.xl(self.work / "xl", self.denoiser_xl.unet)

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """Kept once it is learned: where two merges are equally frequent, chance decides which comes first."""
        folder = self.work / "tokenizer"
        if not (folder / "tokenizer.json").is_file():
            tokens.save(tokens.learn(self.names), folder)
        return CLIPTokenizer.from_pretrained(str(folder))

    @cached_property
    def vae(self) -> AutoencoderKL:
        """The autoencoder, its latents scaled to a deviation of one."""
        torch.manual_seed(0)
        vae = autoencoder.model().to(self.device)
        painters = [scenes.Painter(style) for style in self._styles]
        names = [list(style.names) for style in self._styles]
        plan = self._plan(autoencoder.PLAN)
        exam = self._exam()

        def draw(step: int, chance: Random) -> tuple[torch.Tensor, ...]:
            pixels = autoencoder.crops(painters, names, chance, plan.batch)
            return pixels.to(self.device), autoencoder.shaking(plan.batch).to(self.device)

        def preview() -> None:
            self.say(f"autoencoder: {autoencoder.psnr(vae, exam):.2f} dB")

        fit("autoencoder", vae, draw, autoencoder.loss, plan, self.work, self.say, preview, self._shares)
        scale = 1 / autoencoder.deviation(vae, autoencoder.levels(exam).to(self.device))
        vae.register_to_config(scaling_factor=round(scale, 4))
        self.say(f"autoencoder: {autoencoder.psnr(vae, exam):.2f} dB, scaling {scale:.4f}")
        return vae

    def _exam(self) -> np.ndarray:
        """Pictures for measuring: [n, 64, 64, 3] uint8."""
        chance = Random("exam")
        colours = list(tiny.COLOURS.values())
        taken = [(chance.choice(self.names), chance.choice(colours)) for _ in range(EXAMINED)]
        return np.stack([self.painter.over([scenes.Figure(name)], rgb) for name, rgb in taken])

    @cached_property
    def pair(self) -> pair.Pair:
        """The contrastive pair."""
        torch.manual_seed(1)
        towers = pair.Pair(self.tokenizer).to(self.device)

        def draw(step: int, chance: Random) -> tuple[torch.Tensor, ...]:
            return pair.batch(self.tokenizer, self.painter, self.names, chance)

        def preview() -> None:
            kinds = [None, *scenes.KINDS]
            found = {
                kind or "all": pair.retrieval(towers, self.tokenizer, self.painter, self.names, kind) for kind in kinds
            }
            told = "  ".join(f"{kind} {share:.2f}" for kind, share in found.items())
            self.say(f"pair: right of {pair.EXAMINED} captions  {told}")

        fit("pair", towers, draw, pair.loss, self._plan(pair.PLAN), self.work, self.say, preview)
        preview()
        return towers

    @cached_property
    def _task(self) -> denoiser.Task:
        latents = denoiser.Latents(self.vae, self.painter)
        return denoiser.Task(self.tokenizer, latents, self.names, denoiser.PLAN.batch)

    @cached_property
    def denoiser(self) -> denoiser.Denoiser:
        """UNet and text encoder of the base."""
        text = CLIPTextModel(pair.text_config(self.tokenizer))
        own = text.state_dict()
        learned = {name.removeprefix("text_model."): tensor for name, tensor in self.pair.text.state_dict().items()}
        text.load_state_dict({name: learned[name.removeprefix("text_model.")] for name in own})
        task = self._task
        torch.manual_seed(2)
        model = denoiser.Denoiser(text).to(self.device)

        def preview() -> None:
            folder = self.work / "preview"
            shipping.base(folder, self.tokenizer, self.vae, model.text, model.unet)
            for names, of in ((task.names[: denoiser.FIRST], "the first"), (task.names, "all")):
                sheet = self.work / f"preview-{of.split()[-1]}.png"
                self.say(f"denoiser, of {of} names: {previews.draw(folder, names, sheet, self.painter.emoji)}")

        self._fit_denoiser("denoiser", model, task.batch, denoiser.PLAN, preview)
        self._fit_denoiser("wording", model.requires_grad_(True), task.freer, denoiser.WORDING, preview)
        return model

    @cached_property
    def inpainter(self) -> inpaint.Inpainter:
        """The base's UNet, widened and trained on masks."""
        model = inpaint.Inpainter(self.denoiser.unet, self.denoiser.text).to(self.device)
        task = inpaint.Task(self._task, self.vae, self.painter)
        self._fit_denoiser("inpaint", model, task.batch, inpaint.PLAN)
        return model

    @cached_property
    def denoiser_xl(self) -> xl.DenoiserXL:
        """The SDXL-shaped UNet."""
        base, text, text_2 = self.denoiser.unet, self.denoiser.text, self.pair.text
        torch.manual_seed(3)
        model = xl.DenoiserXL(base, text, text_2).to(self.device)
        task = self._task
        self._fit_denoiser("xl", model, lambda step, chance: xl.batch(task, chance), xl.PLAN)
        return model

    def _fit_denoiser(
        self,
        stage: str,
        model: nn.Module,
        draw: Callable[[int, Random], Batch],
        plan: Plan,
        preview: Callable[[], None] | None = None,
    ) -> None:
        fit(stage, model, draw, denoiser.loss, self._plan(plan), self.work, self.say, preview, self._shares)

    @property
    def _shares(self) -> int:
        """Into how many shares a batch is cut: on a CPU one for each core that torch may use."""
        return 1 if self.device.type == "cuda" else torch.get_num_threads()

    def _plan(self, usual: Plan) -> Plan:
        return replace(usual, steps=max(2, round(usual.steps * self.share)))
