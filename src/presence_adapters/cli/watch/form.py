"""A small dialog over the room: some fields, Enter for the next one and at last for all, Escape for none."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeAlias

from attrs import frozen
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

Answers: TypeAlias = tuple[str, ...]


@frozen
class Field:
    """A field: what it is called, its first value, what may be chosen if not everything may, and whether it
    may be empty."""

    label: str
    value: str = ""
    choices: tuple[str, ...] = ()
    optional: bool = False


class FieldsDialog(ModalScreen[Answers | None]):
    """Ends with what was written into the fields, without the space around it, or with `None`."""

    CSS = """
    FieldsDialog { align: center middle; }
    FieldsDialog > Vertical { width: 50; max-width: 90%; height: auto; max-height: 90%;
                              border: round $primary; padding: 0 1; background: $surface; overflow-y: auto; scrollbar-size-vertical: 1; }
    FieldsDialog Label { margin-top: 1; }
    FieldsDialog Input, FieldsDialog OptionList { border: none; height: auto; padding: 0 1; }
    FieldsDialog OptionList { text-wrap: nowrap; text-overflow: ellipsis; }
    FieldsDialog Input { height: 1; background: $boost; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss", "Cancel")]

    def __init__(self, title: str, *fields: Field) -> None:
        super().__init__()
        self._title = title
        self._fields = fields

    def compose(self) -> ComposeResult:
        """The fields, one below the other."""
        with Vertical() as box:
            box.border_title = self._title
            for number, field in enumerate(self._fields):
                yield Label(f"{field.label} (may be empty)" if field.optional else field.label, markup=False)
                if field.choices:
                    yield OptionList(*field.choices, id=f"field{number}", markup=False)
                else:
                    yield Input(field.value, id=f"field{number}", select_on_focus=False)

    def on_mount(self) -> None:
        """Choose what is to be chosen at first, and begin."""
        for number, field in enumerate(self._fields):
            if field.choices:
                options = self.query_one(f"#field{number}", OptionList)
                options.highlighted = field.choices.index(field.value)
        self.set_focus(self.query_one("#field0"))

    def on_input_submitted(self) -> None:
        """Enter in a line."""
        self._next()

    def on_option_list_option_selected(self) -> None:
        """Enter on a choice."""
        self._next()

    def _next(self) -> None:
        """Go on to the next field, or be done."""
        answers = self._answers()
        focused = self.focused.id if self.focused is not None else None
        number = next(n for n in range(len(self._fields)) if f"field{n}" == focused)
        if not answers[number] and not self._fields[number].optional:
            self.app.bell()
        elif number + 1 < len(self._fields):
            self.set_focus(self.query_one(f"#field{number + 1}"))
        elif all(answer or field.optional for answer, field in zip(answers, self._fields, strict=True)):
            self.dismiss(answers)
        else:
            self.app.bell()

    def _answers(self) -> Answers:
        return tuple(self._answer(number, field) for number, field in enumerate(self._fields))

    def _answer(self, number: int, field: Field) -> str:
        if not field.choices:
            return self.query_one(f"#field{number}", Input).value.strip()
        highlighted = self.query_one(f"#field{number}", OptionList).highlighted
        return field.choices[highlighted or 0]
