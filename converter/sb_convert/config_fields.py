"""What each field of config.json means here: read, bookkeeping, or refused unless its value says nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from .errors import bad
from .rope import TYPE, RopeScaling

log = logging.getLogger("sb_convert")

# of transformers and of training: the computation is the same whatever they say
BOOKKEEPING = frozenset("""
    architectures auto_map transformers_version _name_or_path name_or_path _commit_hash _attn_implementation attn_implementation
    _attn_implementation_autoset _experts_implementation use_cache use_bfloat16 torchscript return_dict use_return_dict
    return_dict_in_generate output_attentions output_hidden_states output_scores chunk_size_feed_forward initializer_range
    attn_mode conv_size conv_bias fuse_cross_entropy fuse_linear_cross_entropy fuse_norm fuse_swiglu use_l2warp hidden_ratio
    attention_dropout hidden_dropout hidden_dropout_prob attention_probs_dropout_prob resid_pdrop embd_pdrop attn_pdrop dropout
    embedding_dropout residual_dropout gradient_checkpointing use_gradient_checkpointing rescale_prenorm_residual id2label label2id
    num_labels problem_type finetuning_task task_specific_params tokenizer_class prefix pretraining_tp is_decoder
    tie_encoder_decoder tf_legacy_loss pad_token_id sep_token_id cls_token_id mask_token_id unk_token_id decoder_start_token_id
    max_length max_new_tokens min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p
    min_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size num_return_sequences
    remove_invalid_values model_max_length max_sequence_length seq_length unsloth_version unsloth_fixed
    router_jitter_noise z_loss aux_loss
    """.split())

# the graph computes what these values say; null, and a field that is absent, say nothing
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,), "is_encoder_decoder": (False,), "cross_attention_hidden_size": (), "pruned_heads": ({},), "quantization_config": ({},),
    "attention_bias": (False,), "attention_out_bias": (False,), "o_bias": (False,), "qkv_bias": (True,), "mlp_bias": (False,), "lm_head_bias": (False,),
    "use_sliding_window": (True,), "max_window_layers": (0,), "attn": (), "sink_size": (0,), "num_meta_tokens": (0,), "attention_sinks": (0, False),
    "partial_rotary_factor": (1,), "rope_pct": (1,), "rotary_pct": (1,), "rope_interleaved": (False,), "rope_interleave": (False,), "use_rope": (True,), "no_rope_layers": ([],),
    "logit_scale": (1,), "logits_scaling": (1,), "embedding_multiplier": (1,), "residual_multiplier": (1,), "scale_emb": (1,), "scale_depth": (), "lm_head_multiplier": (1,),
    "emb_scale": (1,), "embedding_scale": (1,), "attention_multiplier": (), "query_pre_attn_scalar": (), "attn_scale": (), "softmax_scale": (), "scale": (),
    "final_logit_softcapping": (), "attn_logit_softcapping": (), "logit_softcapping": (), "logits_soft_cap": (), "output_logit_soft_cap": (),
    "qk_norm": (False,), "use_qk_norm": (False,), "qk_layernorm": (False,), "norm_first": (True,), "use_post_norm": (False,), "post_norm": (False,),
    "parallel_attn": (False,), "use_parallel_residual": (False,), "alibi": (False,), "clip_qkv": (), "norm_bias": (False,),
    "expand_k": (1,), "expand_v": (1,), "feature_map": ("relu",), "use_output_gate": (False,), "use_gk": (True,), "use_gv": (False,), "use_gate": (False,),
    "clamp_min": (), "clamp_max": (), "k_clamp_max": (1,), "gate_fn": (), "use_lower_bound": (False,), "norm_after_linear_attn": (True,), "gate_bound": (),
    "num_experts": (0,), "num_local_experts": (0,), "n_routed_experts": (0,), "shared_intermediate_size": (0,),
    "num_mtp_modules": (0,), "num_nextn_predict_layers": (0,), "full_attn_layers": ([],),
}

# another project's word for a field of ours: it must say the same
SAME_AS = {"rms_norm_eps": "norm_eps", "layer_norm_eps": "norm_eps", "layer_norm_epsilon": "norm_eps", "hidden_activation": "hidden_act",
           "activation_function": "hidden_act", "num_heads": "num_attention_heads", "num_kv_heads": "num_key_value_heads", "n_layer": "num_hidden_layers",
           "num_layers": "num_hidden_layers", "n_embd": "hidden_size", "d_model": "hidden_size", "n_head": "num_attention_heads", "window_size": "sliding_window",
           "n_positions": "max_position_embeddings", "tie_embeddings": "tie_word_embeddings"}
ACTIVATIONS = ("swish", "silu")
LAYER_KINDS = {"linear_attention": True, "gla": True, "sliding_attention": False, "sliding_window": False, "swa": False}  # -> is gla
ELSEWHERE = frozenset(("rope_parameters", "dtype", "head_dim", "layer_types", "eos_token_id"))  # read by their own rules


def says_nothing(value: Any) -> bool:
    """Whether a value of an unknown field can be passed over: null, false or empty."""
    return value is None or value is False or isinstance(value, (str, list, dict)) and not value


def check_fields(raw: dict[str, Any], read: set[str], where: str, same_as: Mapping[str, str] = {}) -> None:
    """Refuses, by name, what the graph does not compute; names in one warning what it does not know. same_as: more of SAME_AS, of this layout."""
    same_as = SAME_AS | same_as
    unknown = []
    for name, value in raw.items():
        if value is None or name in read | BOOKKEEPING | ELSEWHERE:
            continue
        if name in NEUTRAL and name not in same_as:
            if not any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in NEUTRAL[name]):
                expected = " or ".join(map(repr, NEUTRAL[name])).replace("True", "true").replace("False", "false") or "null"
                raise bad(where, name, repr(value), expected, "this program does not implement other values")
        elif name in same_as and not (raw.get(same_as[name]) is None and name in NEUTRAL and value in NEUTRAL[name]):
            _check_same(raw, name, same_as[name], where)
        elif name not in same_as and not says_nothing(value):
            unknown.append(name)
    if unknown:
        log.warning("%s: %s: not known, and not used; if one of them changes what the model computes, the GGUF is wrong", where, ", ".join(unknown))


def _check_same(raw: dict[str, Any], name: str, ours: str, where: str) -> None:
    if ours not in raw:
        raise bad(where, name, f"{raw[name]!r} and no {ours}", f"{ours}", f"this model's name of it is {ours}: add that")
    if raw[name] != raw[ours] and not (raw[name] in ACTIVATIONS and raw[ours] in ACTIVATIONS):
        raise bad(where, name, repr(raw[name]), f"what {ours} says ({raw[ours]!r})", "correct config.json")


# --- rotary embedding -----------------------------------------------------------------------------------------

def one_rope(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields with rope_theta and rope_scaling (a RopeScaling) in their one place. transformers 5 moves both into rope_parameters, which may hold one set
    for each kind of layer."""
    out, thetas, scalings = dict(raw), {}, {}
    if raw.get("rope_theta") is not None:
        thetas["rope_theta"] = raw["rope_theta"]
    for field in ("rope_scaling", "rope_parameters"):
        for name, held in _rope_sets(raw.get(field), field, where):
            scalings[name] = _scaling(held, name, where)
            if held.get("rope_theta") is not None:
                thetas[f"{name}.rope_theta"] = held["rope_theta"]
    for name, theta in thetas.items():
        if isinstance(theta, bool) or not isinstance(theta, (int, float)):
            raise bad(where, name, f"{theta!r} ({type(theta).__name__})", "float", "correct config.json")
    if len(set(thetas.values())) > 1:
        raise bad(where, "rope_theta", " and ".join(f"{theta!r} ({name})" for name, theta in thetas.items()), "one value", "correct config.json")
    if len(set(scalings.values())) > 1:
        raise bad(where, "rope_scaling", " and ".join(f"{s and s.to_json()} ({name})" for name, s in scalings.items()), "one value", "correct config.json")
    out.pop("rope_scaling", None)
    out.pop("rope_theta", None)
    scaling = next(iter(scalings.values()), None)
    return out | ({"rope_theta": next(iter(thetas.values()))} if thetas else {}) | ({"rope_scaling": scaling} if scaling else {})


def _rope_sets(value: Any, field: str, where: str) -> list[tuple[str, dict[str, Any]]]:
    if value is None:
        return []
    if not isinstance(value, dict):
        raise bad(where, field, repr(value), "null or an object", "correct config.json")
    if value and all(isinstance(v, dict) for v in value.values()):
        unknown = set(value) - set(LAYER_KINDS) - {"full_attention"}
        if unknown:
            raise bad(where, field, repr(value), f"sets for {', '.join(LAYER_KINDS)}", "other kinds of layers are not implemented")
        return [(f"{field}.{kind}", held) for kind, held in value.items()]
    return [(field, value)]


def _scaling(held: dict[str, Any], name: str, where: str) -> RopeScaling | None:
    kind = held.get("rope_type", held.get("type"))
    if kind == TYPE and held.get("type", kind) == kind:
        return RopeScaling.of({k: v for k, v in held.items() if v is not None and k not in ("rope_type", "type", "rope_theta")}, where, name)
    plain = kind in (None, "default") or kind == "linear" and held.get("factor") == 1
    extra = {k: v for k, v in held.items() if v is not None and k not in ("rope_type", "type", "rope_theta") and not (k in ("factor", "partial_rotary_factor") and v == 1)}
    if "type" in held and "rope_type" in held and held["type"] != held["rope_type"]:
        plain = False
    if not plain or extra:
        raise bad(where, name, repr(held), "null", f"only the plain rotary embedding (rope_type 'default') and that of type {TYPE!r} are implemented")
    return None


def check_layer_types(raw: dict[str, Any], where: str) -> None:
    """layer_types, where it is there, must say what attn_layers says."""
    kinds, swa, n = raw.get("layer_types"), raw.get("attn_layers"), raw.get("num_hidden_layers")
    if kinds is None or not isinstance(swa, list) or not isinstance(n, int):
        return
    if not isinstance(kinds, list) or len(kinds) != n:
        raise bad(where, "layer_types", repr(kinds), f"a list of {n} (num_hidden_layers)", "correct config.json")
    for il, kind in enumerate(kinds):
        if LAYER_KINDS.get(str(kind)) is not (il not in swa):
            raise bad(where, "layer_types", f"{kind!r} for layer {il}", "'sliding_attention'" if il in swa else "'linear_attention'", "attn_layers says so; correct config.json")


def check_each_layer(raw: dict[str, Any], name: str, expected: list[Any], because: str, where: str) -> None:
    """A list with an entry per layer, where it is there, must say what `because` says."""
    held, n = raw.get(name), len(expected)
    if held is None:
        return
    if not isinstance(held, list) or len(held) != n:
        raise bad(where, name, repr(held), f"a list of {n} (num_hidden_layers)", "correct config.json")
    for il, (got, want) in enumerate(zip(held, expected)):
        if got != want or type(got) is not type(want):
            raise bad(where, name, f"{got!r} for layer {il}", repr(want), f"{because} say so; correct config.json")


def one_dtype(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """transformers 5 writes dtype for torch_dtype; null says nothing (the tensors say their own)."""
    held = {name: raw[name] for name in ("torch_dtype", "dtype") if raw.get(name) is not None}
    for name, value in held.items():
        if not isinstance(value, str):
            raise bad(where, name, f"{value!r} ({type(value).__name__})", "str", "correct config.json")
    if len(set(held.values())) > 1:
        raise bad(where, "dtype", repr(held["dtype"]), f"what torch_dtype says ({held['torch_dtype']!r})", "correct config.json")
    out = {k: v for k, v in raw.items() if k not in ("torch_dtype", "dtype")}
    return out | ({"torch_dtype": next(iter(held.values())).removeprefix("torch.")} if held else {})
