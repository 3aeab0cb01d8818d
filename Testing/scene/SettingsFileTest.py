"""Settings as a file: what the panel writes, the panel and the commands read."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headless
from DiffUSLib.errors import RenderError
from DiffUSLib.kinds import TissueTable
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameters import ImagePreset, ProbePreset, readParameters
from DiffUSLib.render.settings_file import loadSettings, saveSettings
from headless.fixtures import addParameterNode


class SettingsFileTest(unittest.TestCase):
    def setUp(self):
        headless.newScene()
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = str(self.folder / "settings.json")
        self.logic = RenderLogic()
        self.parameters = addParameterNode(tissueTable=TissueTable.SEED)
        self.fresh = addParameterNode(rays=192, samples=400)

    def testEveryPresetComesBack(self):
        for preset in ImagePreset:
            if preset is ImagePreset.CUSTOM:
                continue
            with self.subTest(preset=preset):
                self.logic.applyImagePreset(self.parameters, preset)
                self.logic.applyPreset(self.parameters, ProbePreset.LINEAR)
                self.parameters.startDepthMm = 7.0
                saveSettings(self.parameters, self.path)
                loadSettings(self.fresh, self.path)
                self.assertEqual(readParameters(self.fresh), readParameters(self.parameters))
                self.assertEqual((self.fresh.imagePreset, self.fresh.preset), (preset, ProbePreset.CUSTOM))
                self.assertEqual(self.fresh.tissueTable, TissueTable.SEED)
        self.assertEqual([one.name for one in self.folder.iterdir()], ["settings.json"])

    def testTheCommandsReadIt(self):
        from diffus.io.tables import read_settings, read_tissues_of_settings
        from diffus.probe.specification import read_probe_json
        from diffus.render.settings import paper_settings
        from DiffUSLib.engine import buildProbe

        self.logic.applyImagePreset(self.parameters, ImagePreset.PAPER)
        saveSettings(self.parameters, self.path)
        read = paper_settings().replace(**read_settings(self.path))
        self.assertEqual(read, paper_settings())
        self.assertEqual(read_probe_json(self.path), buildProbe(readParameters(self.parameters).probe))
        self.assertEqual(read_tissues_of_settings(self.path), "seed")

    def testSettingsAloneLeaveTheProbe(self):
        Path(self.path).write_text(json.dumps({"gain_db": 9.0, "noise_db": None}))
        self.fresh.depthMm = 44.0
        loadSettings(self.fresh, self.path)
        self.assertEqual((self.fresh.gainDb, self.fresh.noise, self.fresh.depthMm), (9.0, False, 44.0))
        self.assertEqual(self.fresh.imagePreset, ImagePreset.CUSTOM)

    def testWhatIsNoneIsRefusedAndChangesNothing(self):
        before = readParameters(self.fresh)
        for text, said in (
            ("no JSON", "not valid JSON"),
            ("[1]", "must hold settings"),
            ('{"gain_db": 999}', "gain_db is 999"),
            ('{"seed": 99999}', "the panel allows"),
            ('{"brightness": 1}', "brightness"),
            ('{"settings": {}, "tissues": "mine"}', "tissue table 'mine'"),
            ('{"settings": {"gain_db": 3}, "probe": {"type": "round"}}', "round"),
        ):
            with self.subTest(text=text), self.assertRaisesRegex(RenderError, said):
                Path(self.path).write_text(text)
                loadSettings(self.fresh, self.path)
        with self.assertRaises(RenderError):
            loadSettings(self.fresh, str(self.folder / "absent.json"))
        self.assertEqual(readParameters(self.fresh), before)
        for place in (self.folder / "settings.txt", self.folder / "absent" / "settings.json"):
            with self.assertRaises(RenderError):
                saveSettings(self.fresh, str(place))


if __name__ == "__main__":
    unittest.main()
