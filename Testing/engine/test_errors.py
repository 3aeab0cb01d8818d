"""Sentences of the engine: English as they are, and what a translation is made from."""

import copy
import json
import pickle

import pytest
from diffus.errors import InputError, Sentence, _
from diffus.probe import probe_preset


def test_a_sentence_is_its_text_and_remembers_what_it_was_made_from():
    sentence = Sentence(_("{count} frames of {size:.1f} mm"), count=3, size=2.0)
    assert sentence == "3 frames of 2.0 mm"
    assert json.dumps(sentence) == '"3 frames of 2.0 mm"'
    assert (sentence.template, sentence.values) == ("{count} frames of {size:.1f} mm", {"count": 3, "size": 2.0})
    assert sentence.context == ""  # no file of the engine made it
    for other in (pickle.loads(pickle.dumps(sentence)), copy.deepcopy(sentence)):
        assert (other, other.template) == (sentence, sentence.template)


def test_a_sentence_without_values_may_hold_braces():
    assert str(InputError('give {"1": "liver"}')) == 'give {"1": "liver"}'


def test_an_error_knows_the_file_that_its_translation_stands_under():
    with pytest.raises(InputError, match="There is no probe preset 'x'") as raised:
        probe_preset("x")
    assert raised.value.sentence.context == "presets"
    assert "{name}" in raised.value.sentence.template
    assert pickle.loads(pickle.dumps(raised.value)).args == raised.value.args
