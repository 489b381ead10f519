"""A door: ``import glora.peft`` registers the tuner of `glora.integrations.peft_tuner` with PEFT."""

from glora.integrations.peft_tuner import NAME, AdaptedLinear, GLoRAPeftConfig, GLoRAPeftModel, balance, register

__all__ = ["NAME", "AdaptedLinear", "GLoRAPeftConfig", "GLoRAPeftModel", "balance", "register"]
