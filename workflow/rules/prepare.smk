rule prepare:
    input:
        GRAPH.inputs("datasets"),
    output:
        GRAPH.outputs("datasets", "{dataset}"),
    log:
        "logs/prepare/{dataset}.log",
    benchmark:
        "logs/prepare/{dataset}.jsonl"
    wildcard_constraints:
        dataset=GRAPH.constraint("datasets"),
    threads: GRAPH.threads
    params:
        entry=GRAPH.entry("datasets"),
        code=GRAPH.code("datasets"),
        plan=GRAPH.plan_option,
    message:
        "Dataset {wildcards.dataset}"
    shell:
        "anchored prepare {wildcards.dataset}{params.plan}"
