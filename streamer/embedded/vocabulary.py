"""The embedded model's tokenizer: byte-level BPE, so that any text has tokens, with whole words."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from streamer.embedded.scene import COLOURS, DIRECTIONS, SHAPES
from streamer.embedded.truth import (
    CAMERA_SAYS,
    NUMBERS,
    QUESTION,
    QUESTIONS,
    REGIONS,
    Description,
    answer,
    caption,
)

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# words with the space before them, digits one by one, the time stamp's end as one piece
SPLIT = r" seconds>| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]|\s+"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Trained on every word the captions, answers, questions and time stamps can hold."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        min_frequency=1,
        show_progress=False,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def _texts() -> list[str]:
    texts = [QUESTION, *QUESTIONS, "user\n", "assistant\n"]
    texts += [f"<{t / 10:.1f} seconds>" for t in range(0, 200, 3)]
    for camera in CAMERA_SAYS:
        texts += _told(Description(camera=camera))
    for count in range(len(NUMBERS)):
        for i in range(len(REGIONS)):
            for colour in COLOURS:
                shape = SHAPES[i % len(SHAPES)]
                truth = Description(
                    camera="still",
                    count=count,
                    shape=shape,
                    colour=colour,
                    region=REGIONS[i],
                    direction=DIRECTIONS[i % len(DIRECTIONS)],
                    left=f"an {colour} {shape}",
                    came="nothing",
                )
                texts += _told(truth)
    return texts


def _told(truth: Description) -> list[str]:
    answers = (answer(truth, question) for question in QUESTIONS)
    return [caption(truth), *(told for told in answers if told)]
