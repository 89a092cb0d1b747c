# A FIM takes seconds and opens all anchored jobs of its backbone, so it goes before any job.
rule fim:
    input:
        needs=GRAPH.inputs("fims"),
        code=GRAPH.code("fims"),
    output:
        GRAPH.outputs("fims", "{fim}"),
    log:
        "logs/fim/{fim}.log",
    benchmark:
        "logs/fim/{fim}.jsonl"
    wildcard_constraints:
        fim=GRAPH.constraint("fims"),
    priority: 1000000
    threads: GRAPH.threads
    resources:
        gpu=GPUS,
    params:
        entry=GRAPH.entry("fims"),
        plan=GRAPH.plan_option,
    message:
        "Diagonal Fisher {wildcards.fim}"
    shell:
        "anchored fim {wildcards.fim}{params.plan}"
