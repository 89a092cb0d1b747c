"""The template of results/report.html. A module, not a data file: engines see a change of it as a change of code."""

TEMPLATE = """{% macro grid(header, rows, left) %}<div class="scroll"><table>
<thead><tr>
{%- for name in header %}<th{% if loop.index0 < left %} class="left"{% endif %}>{{ name }}</th>{% endfor -%}
</tr></thead>
<tbody>{% for row in rows %}<tr>
{%- for cell in row %}<td{% if loop.index0 < left %} class="left"{% endif %}>{{ cell }}</td>{% endfor -%}
</tr>
{% endfor %}</tbody></table></div>{% endmacro %}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; }
body { max-width: 76rem; margin: 0 auto; padding: 1.5rem; }
h1, h2, h3 { line-height: 1.25; } h2 { margin-top: 3rem; border-bottom: 1px solid #ddd; } h3 { margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #e4e4e4; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #888; vertical-align: bottom; white-space: normal; min-width: 4.5rem; }
.left { text-align: left; }
.notes { color: #444; font-size: 13px; max-width: 60rem; padding-left: 1.2rem; }
figure { margin: 1.5rem 0; } figure svg { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: 13px; max-width: 60rem; }
.premise { border-left: 4px solid #D55E00; padding: .2rem 1rem; background: #fdf6f1; max-width: 60rem; }
code { font-size: 12px; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>Plan <b>{{ plan_name }}</b>, <code>sha256:{{ plan_digest }}</code>.
Every accuracy here is computed from stored per-image predictions;
the files in <code>results/tables</code> hold the numbers to twelve decimals.</p>
<nav><ul>{% for section in sections %}<li><a href="#{{ section.name }}">{{ section.title }}</a></li>{% endfor %}
<li><a href="#provenance">Provenance</a></li></ul></nav>
{% for section in sections %}
<section id="{{ section.name }}">
<h2>{{ section.title }}</h2>
{% if section.note %}<p class="premise">{{ section.note }}</p>{% endif %}
{% for figure in section.figures %}
<figure>{{ figure.svg|safe }}<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}
{% for table in section.tables %}
<h3 id="{{ table.name }}">{{ table.title }}</h3>
<p>{{ table.caption }}</p>
{{ grid(table.header, table.rows, table.left) }}
<ul class="notes">{% for note in table.notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% endfor %}
{% if section.training.rows %}
<h3>Training of the picked models</h3>
<p>From the training histories, mean ± sd over seeds of the models picked by {{ section.training.rule }};
not computed from predictions.</p>
{{ grid(section.training.header, section.training.rows, 1) }}
{% endif %}
</section>
{% endfor %}
<section id="provenance">
<h2>Provenance</h2>
{% if provenance.rows %}{{ grid(provenance.header, provenance.rows, 4) }}
{% else %}<p>No records were found.</p>{% endif %}
</section>
</body>
</html>
"""
