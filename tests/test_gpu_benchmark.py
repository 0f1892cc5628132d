"""The script for machines with a GPU runs on those without one, in a small form."""

import gpu
import pytest
import torch


def test_a_machine_without_a_gpu_is_told(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("gpu.py: this machine has no GPU")


@pytest.mark.slow
def test_the_small_form_measures_everything(tmp_path, capsys):
    assert gpu.main(["--device", "cpu", "--smoke", "--out", str(tmp_path / "gpu.md")]) == 0
    page = (tmp_path / "gpu.md").read_text()
    assert "failed" not in page
    for part in ("float16, with transfers", "float16 off float32 by", "in tiles", "msp prisma_st"):
        assert part in page
    assert capsys.readouterr().out.strip() in page
