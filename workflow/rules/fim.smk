# A FIM takes seconds to hours and opens all anchored jobs of its backbone, so it goes before any job. One rule measures it whole;
# or its shards are measured by jobs of their own, on as many machines as there are, and merged.
rule fim:
    input:
        GRAPH.inputs("whole"),
    output:
        GRAPH.outputs("whole", "{fim}"),
    log:
        "logs/fim/{fim}.log",
    benchmark:
        "logs/fim/{fim}.jsonl"
    wildcard_constraints:
        fim=GRAPH.constraint("whole"),
    priority: 1000000
    threads: GRAPH.threads
    resources:
        gpu=GPUS,
    params:
        entry=GRAPH.entry("fims"),
        code=GRAPH.code("whole"),
        plan=GRAPH.plan_option,
    message:
        "Diagonal Fisher {wildcards.fim}"
    shell:
        "anchored fim {wildcards.fim}{params.plan}"


rule fim_shard:
    input:
        GRAPH.inputs("shards"),
    output:
        GRAPH.outputs("shards", "{shard}"),
    log:
        "logs/fim/{shard}.log",
    benchmark:
        "logs/fim/{shard}.jsonl"
    wildcard_constraints:
        shard=GRAPH.constraint("shards"),
    priority: 1000000
    threads: GRAPH.threads
    resources:
        gpu=GPUS,
    params:
        entry=GRAPH.entry("shards"),
        code=GRAPH.code("shards"),
        plan=GRAPH.plan_option,
    message:
        "Diagonal Fisher {params.entry[fim]}, shard {params.entry[shard]}"
    shell:
        "anchored fim {params.entry[fim]} --shard {params.entry[shard]}{params.plan}"


rule fim_merge:
    input:
        GRAPH.inputs("merged"),
    output:
        GRAPH.outputs("merged", "{fim}"),
    log:
        "logs/fim-merge/{fim}.log",
    benchmark:
        "logs/fim-merge/{fim}.jsonl"
    wildcard_constraints:
        fim=GRAPH.constraint("merged"),
    priority: 1000000
    threads: 1
    params:
        entry=GRAPH.entry("fims"),
        code=GRAPH.code("merged"),
        plan=GRAPH.plan_option,
    message:
        "Shards of {wildcards.fim} merged"
    shell:
        "anchored fim-merge {wildcards.fim}{params.plan}"
