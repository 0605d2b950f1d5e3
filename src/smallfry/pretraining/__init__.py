"""From raw text to a model: `plan` says every setting and why, `run` goes through the stages, `record` the result."""

from smallfry.pretraining.run import pretrain as pretrain
