# Backbones come first: FIMs and all jobs wait for them. Three rules for one command, as in dvc.yaml: an imported backbone waits for
# no bank, or, to be completed with a head, for no probe.
rule pretrain:
    input:
        needs=GRAPH.inputs("pretrained"),
        code=GRAPH.code("backbones"),
    output:
        GRAPH.outputs("backbones", "{backbone}"),
    log:
        "logs/pretrain/{backbone}.log",
    benchmark:
        "logs/pretrain/{backbone}.jsonl"
    wildcard_constraints:
        backbone=GRAPH.constraint("pretrained"),
    priority: 2000000
    threads: GRAPH.threads
    resources:
        gpu=GPUS,
    params:
        entry=GRAPH.entry("backbones"),
        plan=GRAPH.plan_option,
    message:
        "Backbone {wildcards.backbone}"
    shell:
        "anchored pretrain {wildcards.backbone}{params.plan}"


rule complete_backbone:
    input:
        needs=GRAPH.inputs("completed"),
        code=GRAPH.code("backbones"),
    output:
        GRAPH.outputs("backbones", "{backbone}"),
    log:
        "logs/pretrain/{backbone}.log",
    benchmark:
        "logs/pretrain/{backbone}.jsonl"
    wildcard_constraints:
        backbone=GRAPH.constraint("completed"),
    priority: 2000000
    threads: GRAPH.threads
    resources:
        gpu=GPUS,
    params:
        entry=GRAPH.entry("backbones"),
        plan=GRAPH.plan_option,
    message:
        "Importing {wildcards.backbone}, with a head"
    shell:
        "anchored pretrain {wildcards.backbone}{params.plan}"


rule import_backbone:
    input:
        code=GRAPH.code("backbones"),
    output:
        GRAPH.outputs("backbones", "{backbone}"),
    log:
        "logs/pretrain/{backbone}.log",
    benchmark:
        "logs/pretrain/{backbone}.jsonl"
    wildcard_constraints:
        backbone=GRAPH.constraint("imported"),
    priority: 2000000
    threads: GRAPH.threads
    params:
        entry=GRAPH.entry("backbones"),
        plan=GRAPH.plan_option,
    message:
        "Importing {wildcards.backbone}"
    shell:
        "anchored pretrain {wildcards.backbone}{params.plan}"
