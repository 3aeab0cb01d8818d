"""Sentences of the engine in the user's language, as a translation of Slicer would give them."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
from DiffUSLib import i18n
from DiffUSLib.engine import engineErrors, presetSettings
from DiffUSLib.errors import RenderError
from DiffUSLib.render.parameters import ProbeSettings


class TranslationTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()

    def translating(self, texts: dict[tuple[str, str], str]):
        return mock.patch.object(i18n, "translate", lambda context, text: texts.get((context, text), text))

    def testAnErrorOfTheEngineIsLookedUpByItsFileAndTemplate(self):
        known = {("presets", "There is no probe preset '{name}'; choose one of {names}."): "{names}, nicht {name}."}
        with self.translating(known), self.assertRaisesRegex(RenderError, "craniotomy-convex.*, nicht nothing[.]$"):
            presetSettings("nothing", ProbeSettings())

    def testTheReasonsOfAVerdictAreTranslated(self):
        from diffus.register.verdict import judge

        with self.translating({("verdict", "the sweep and the volume do not overlap"): "nichts liegt im Volumen"}):
            self.assertEqual(i18n.translated(judge(None).reasons[0]), "nichts liegt im Volumen")

    def testWhatASentenceHoldsIsTranslatedToo(self):
        from diffus.errors import Sentence

        inner, outer = Sentence("volumes of kind {kind}", kind="ct"), "not calibrated for {what}"
        inner.context = "registration"
        with self.translating({("registration", "volumes of kind {kind}"): "Volumen der Art {kind}"}):
            self.assertEqual(i18n.translated(Sentence(outer, what=inner)), "not calibrated for Volumen der Art ct")

    def testWhatIsNotTranslatedStaysEnglish(self):
        with self.assertRaisesRegex(RenderError, "^There is no probe preset 'nothing'"), engineErrors():
            presetSettings("nothing", ProbeSettings())
        self.assertEqual(i18n.translated("plain text"), "plain text")


if __name__ == "__main__":
    unittest.main()
