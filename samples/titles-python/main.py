"""Says a table's name for a class's name; shows a pure package from requirements.txt."""

import inflection


def handler(event, context):
    word = str(event.get("word", "InvoiceLine"))
    return {"class": inflection.camelize(word), "table": inflection.tableize(word), "title": inflection.titleize(word)}
