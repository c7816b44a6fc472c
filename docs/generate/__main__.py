"""Write the reference pages from the code: ``python -m docs.generate``, or ``make docs``."""

from docs.generate.pages import FOLDER, reference_pages

for name, text in reference_pages().items():
    path = FOLDER / name
    path.write_text(text, encoding="utf-8")
    print(path)
