"""The public reports of the museum: title, version, and how much of the thread could be read.

They were read in a stored copy that gives excerpts of threads (November 2026). What is marked whole was read from its
first line to its last; of the others the lines that a case replays were read, and not every comment. A report that
states no version in what was read says so.
"""

from __future__ import annotations

from dataclasses import dataclass

UNSTATED = "not stated in what was read"


@dataclass(frozen=True)
class Report:
    """A public report.

    Attributes:
        title: its title.
        version: what it was seen with.
        whole: whether all of the thread was read.
    """

    title: str
    version: str = UNSTATED
    whole: bool = False


REPORTS = {
    "vllm-project/vllm#55193": Report(
        "LoRA adapter targeting no configured modules silently serves the base model", "vLLM 0.28.0, torch 2.13.0"
    ),
    "vllm-project/vllm-omni#7190": Report(
        "Diffusion LoRA adapters can activate with zero effect: no target-module validation on the tensor path",
        "vLLM-Omni 38abc0ba, vLLM 0.28",
    ),
    "vllm-project/vllm#39278": Report("Warn when adapter has zero effective modules after loading"),
    "vllm-project/vllm#34186": Report(
        "LoRA adapters with mismatched module name prefixes silently produce base-model output",
        "vLLM 0.15.1, torch 2.9.1",
    ),
    "alvdansen/signet-trainer#105": Report(
        "load_lora_onto_transformer discards the load result, so an unapplied adapter silently renders the base",
        whole=True,
    ),
    "huggingface/diffusers#10187": Report("Improve warning messages when LoRA loading becomes a no-op"),
    "ml-explore/mlx-examples#337": Report("feat: move lora into mlx-lm"),
    "huggingface/diffusers#11383": Report("HiDream LoRA support", "diffusers e30d3bf5"),
    "huggingface/diffusers#9622": Report("log a warning when there are missing keys in the LoRA loading"),
    "mflux-community/mflux#505": Report(
        "Accept ComfyUI's bare LoRA tensor names, and never apply zero layers silently"
    ),
    "huggingface/sentence-transformers#3865": Report("Load trained PEFT adapter weights when loading an adapter model"),
    "huggingface/peft#3533": Report(
        "inject_adapter silently accepts a second adapter whose target_modules match nothing",
        "PEFT 5f55a63, transformers 4.57.6, torch 2.13.0",
    ),
    "tloen/alpaca-lora#293": Report("adapter_model.bin not being updated and only 443 bytes after finetuning"),
    "hiyouga/LlamaFactory#6105": Report(
        "(Chinese) the model was not merged in",
        "LLaMA-Factory 0.9.1.dev0, torch 2.3.1, transformers 4.46.1, PEFT 0.12.0",
    ),
    "huggingface/peft#310": Report(
        "LoRA for SequenceClassification models do not save output layer weights", "PEFT 0.2.0, transformers 4.24.0"
    ),
    "huggingface/sentence-transformers#3980": Report(
        "Loading a LoRA CrossEncoder checkpoint does not restore a trained modules_to_save classification head"
    ),
    "IBM/activated-lora#16": Report(
        "Prerelease version 0.3.0 causing warnings when loading trained models", "activated-lora 0.3.0 (prerelease)"
    ),
    "KohakuBlueleaf/LyCORIS#216": Report("DoRA implementation differs from PEFT DoRA"),
    "huggingface/transformers#45079": Report("Fix resized LM head weights being overwritten by post_init"),
    "verl-project/verl#7285": Report(
        'model_merger writes a "merged" directory that is byte-identical to the base model', "verl 87c68d2"
    ),
    "huggingface/trl#386": Report("Lora weights are not merged properly in merge_peft_adapter", whole=True),
    "unslothai/unsloth#2142": Report("Applying LoRA Doesn't Change Model Output"),
    "OpenBMB/MiniCPM-V#502": Report("base model + lora vs merged", whole=True),
    "huggingface/peft#1355": Report("FIX: Make merging of adapter weights idempotent", whole=True),
    "huggingface/peft#3482": Report("Fix sequential merge invariants for FRoD, HiRA, and PEANuT"),
    "huggingface/peft#3498": Report(
        "Deleting a merged adapter can leave the base weights modified",
        "PEFT 0.20.1.dev0, torch 2.13.0, transformers 5.14.1",
    ),
    "huggingface/peft#1001": Report("FEAT: Add safe_merge option in merge"),
    "unslothai/unsloth#3690": Report("Sanitize inf/NaN value in LoRA for consistent save_pretrained_merged()"),
    "LibreYOLO/libreyolo#636": Report("Fix v1.4.0 release blockers", "LibreYOLO 1.4.0"),
    "huggingface/peft#2213": Report(
        "(Chinese) KeyError 'base_model…mlp.down_proj' when merging and exporting a QLoRA model"
    ),
    "huggingface/transformers#45127": Report(
        "Model collapse after merging LoRA with extended vocabulary on models with tie_word_embeddings=True",
        "transformers 4.56.2, torch 2.11.0",
    ),
    "unslothai/unsloth#9331": Report("Fix silent dropping of embed_tokens/lm_head when listed in target_modules"),
    "thinking-machines-lab/tinker-cookbook#593": Report("Fix unembed_tokens merge for models with tied embeddings"),
    "unslothai/unsloth#3454": Report("Merged Model collapse while LoRA model works well"),
    "huggingface/peft#1612": Report("LoRA layer param.grad=None after loss.backward() using lora for mamba 2.8B"),
    "state-spaces/mamba#279": Report("LoRA layer param.grad=None after loss.backward() using lora for mamba 2.8B"),
    "huggingface/transformers#30316": Report(
        "Mamba + LoRA: after merge_and_unload() does not work well", "transformers 4.39.3, PEFT 0.10.0"
    ),
    "pytorch/pytorch#128413": Report("Forward hooks not called when fast path is used in TransformerEncoderLayer"),
    "microsoft/LoRA#61": Report("model.eval() does not merge weights", whole=True),
    "hiyouga/LlamaFactory#4913": Report(
        "(Chinese) after merging LoRA the answers are confused, far from those before",
        "LLaMA-Factory 0.8.3.dev0, torch 2.2.2, transformers 4.42.3, PEFT 0.11.1",
    ),
    "huggingface/peft#1035": Report("Quality of inference severely changed after merge_and_unload"),
    "ikawrakow/ik_llama.cpp#1986": Report("--lora doesn't work"),
    "Lightning-AI/pytorch-lightning#15063": Report("Implement freeze batchnorm with freezing track running stats"),
    "open-mmlab/mmsegmentation#362": Report("Cannot freeze batch norm statistics"),
    "chemprop/chemprop#952": Report("Update batch norm freezing to freeze running stats"),
    "isht7/pytorch-deeplab-resnet#39": Report("Frozen the statistics of BN?"),
    "learnables/learn2learn#207": Report("MAML BatchNorm Statistics", whole=True),
    "huggingface/peft#3756": Report(
        "Merging a subset of the active adapters silently disables the remaining active adapters in forward",
        "PEFT 0.21.0 (fd570a5f), transformers 5.17.0, torch 2.14.0",
    ),
    "huggingface/trl#2873": Report("Move unmerge of PEFT model after weight loading"),
    "Baijiong-Lin/LoRA-Torch#10": Report("Question about loratorch.register_model_param_after_backward(model)"),
    "huggingface/peft#3447": Report(
        "disable_adapter() / enable_adapter_layers() silently unfreezes adapters loaded with inference_mode=True"
    ),
    "artidoro/qlora#54": Report("try finetune guanaco-33b-merged with default params and some problems"),
    "huggingface/peft#2117": Report("ENH: Improved attribute access for modules_to_save"),
    "hpcaitech/ColossalAI#3389": Report("LlamaRM model has no attribute 'resize_token_embeddings'"),
    "huggingface/peft#2784": Report("FIX: All PEFT layers expose in_features, out_features", whole=True),
    "Lightning-AI/pytorch-lightning#14036": Report(
        "Cannot use torch.jit.trace to trace LightningModule in Lightning v1.7", "Lightning 1.7.0"
    ),
    "huggingface/transformers#25163": Report(
        "TracingCheckError: Tracing failed sanity checks! Graphs differed across invocations!"
    ),
    "pytorch/pytorch#128394": Report("Failed to trace HF Llama2 model"),
    "huggingface/transformers#29190": Report("torch.export fails for llama model"),
    "cloneofsimo/lora#26": Report(
        "Gradient checkpointing blocks LoRA weight updates", "lora-diffusion 0.0.3, diffusers 0.10.2, torch 1.13.0"
    ),
    "kohya-ss/sd-scripts#91": Report("No train when gradient_checkpointing is enabled again"),
    "huggingface/trl#3926": Report("SFTTrainer freezes LoRA adapter when using PEFT model as argument"),
    "huggingface/peft#793": Report("Lora model (after fine tuning) working exactly the same as base model"),
    "huggingface/trl#6700": Report(
        "GRPOTrainer silently no-ops (empty optimizer) when continuing from a PeftModel loaded with is_trainable=False",
        "PEFT 0.20.0",
    ),
    "huggingface/peft#2322": Report("model merge and unload feature for AdaLora"),
}
