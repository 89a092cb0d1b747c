TABLES, FIGURES, PAGE, RECORD = GRAPH.outputs("tables")


rule tables:
    input:
        GRAPH.inputs("tables"),
    output:
        tables=report(
            directory(TABLES),
            patterns=["{name}.csv"],
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{name}"},
        ),
        figures=report(
            directory(FIGURES),
            patterns=["{name}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{name}"},
        ),
        page=report(PAGE, caption="../report/page.rst", category="Page"),
        record=RECORD,
    log:
        "logs/tables/all.log",
    benchmark:
        "logs/tables/all.jsonl"
    threads: GRAPH.threads
    params:
        code=GRAPH.code("tables"),
        plan=GRAPH.plan_option,
    message:
        "Tables, figures and the page"
    shell:
        "anchored tables{params.plan}"
