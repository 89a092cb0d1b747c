# Two rules for one command: DVC cannot take a list of inputs from the plan, so in its graph a job without a FIM must be of
# another kind than one that waits for it; both engines keep the same nodes. The command writes its log itself.


rule finetune_baseline:
    input:
        GRAPH.inputs("baseline"),
    output:
        GRAPH.outputs("baseline", "{job}"),
    log:
        "logs/finetune/{job}.log",
    benchmark:
        "logs/finetune/{job}.jsonl"
    wildcard_constraints:
        job=GRAPH.constraint("baseline"),
    priority: GRAPH.priority("baseline")
    threads: GRAPH.threads
    resources:
        gpu=GPUS,
    params:
        entry=GRAPH.entry("baseline"),
        code=GRAPH.code("baseline"),
        plan=GRAPH.plan_option,
    message:
        "Fine-tuning {wildcards.job}"
    shell:
        "anchored finetune {wildcards.job}{params.plan}"


rule finetune_anchored:
    input:
        GRAPH.inputs("anchored"),
    output:
        GRAPH.outputs("anchored", "{job}"),
    log:
        "logs/finetune/{job}.log",
    benchmark:
        "logs/finetune/{job}.jsonl"
    wildcard_constraints:
        job=GRAPH.constraint("anchored"),
    priority: GRAPH.priority("anchored")
    threads: GRAPH.threads
    resources:
        gpu=GPUS,
    params:
        entry=GRAPH.entry("anchored"),
        code=GRAPH.code("anchored"),
        plan=GRAPH.plan_option,
    message:
        "Fine-tuning {wildcards.job}"
    shell:
        "anchored finetune {wildcards.job}{params.plan}"
