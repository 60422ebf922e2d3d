"""Hugging Face's Trainer under trace, with two lines added: a small BERT learns which of two words a text has more of.

Afterwards: fgtrac history runs/words.trace Words:7
"""

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

from fgtrac.frameworks.trainer import TrainerTrace  # fgtrac


class Words(Dataset):
    """Texts of eleven words, each word 1 or 2; the label is the more frequent one's."""

    def __init__(self, texts: int, seed: int) -> None:
        self.texts = torch.randint(1, 3, (texts, 11), generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        text = self.texts[row]
        return {"input_ids": text, "labels": (text.sum() > 16).long()}


torch.manual_seed(0)
layers = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
model = BertForSequenceClassification(BertConfig(vocab_size=3, max_position_embeddings=16, **layers))
arguments = TrainingArguments(
    "saves/words",
    num_train_epochs=2,
    per_device_train_batch_size=8,
    gradient_accumulation_steps=2,
    learning_rate=1e-3,
    eval_strategy="epoch",
    save_strategy="epoch",
    dataloader_pin_memory=False,
    disable_tqdm=True,
    report_to=[],
)
trainer = Trainer(
    model,
    arguments,
    train_dataset=Words(120, seed=1),
    eval_dataset=Words(40, seed=2),
    callbacks=[TrainerTrace("runs/words")],  # fgtrac
)
trainer.remove_callback(PrinterCallback)
trainer.train()
for told in trainer.state.log_history:
    if "eval_loss" in told:
        print(f"epoch {told['epoch']:.0f}: validation loss {told['eval_loss']:.4f}")
