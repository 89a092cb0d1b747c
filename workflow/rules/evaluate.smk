rule evaluate:
    input:
        GRAPH.inputs("evaluate"),
    output:
        GRAPH.outputs("evaluate"),
    log:
        "logs/evaluate/all.log",
    benchmark:
        "logs/evaluate/all.jsonl"
    threads: GRAPH.threads
    params:
        code=GRAPH.code("evaluate"),
        plan=GRAPH.plan_option,
    message:
        "Metrics, selections and comparisons of all runs"
    shell:
        "anchored evaluate{params.plan}"
