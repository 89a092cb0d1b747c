# Backbones come first: FIMs and all jobs wait for them. Three rules for one command, as in dvc.yaml: an imported backbone waits for
# no bank, or, to be completed with a head, for no probe.
rule pretrain:
    input:
        GRAPH.inputs("pretrained"),
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
        code=GRAPH.code("backbones"),
        plan=GRAPH.plan_option,
    message:
        "Backbone {wildcards.backbone}"
    shell:
        "anchored pretrain {wildcards.backbone}{params.plan}"


rule complete_backbone:
    input:
        GRAPH.inputs("completed"),
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
        code=GRAPH.code("backbones"),
        plan=GRAPH.plan_option,
    message:
        "Importing {wildcards.backbone}, with a head"
    shell:
        "anchored pretrain {wildcards.backbone}{params.plan}"


rule import_backbone:
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
        code=GRAPH.code("backbones"),
        plan=GRAPH.plan_option,
    message:
        "Importing {wildcards.backbone}"
    shell:
        "anchored pretrain {wildcards.backbone}{params.plan}"
