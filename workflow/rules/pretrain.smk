# Backbones come first: FIMs and all jobs wait for them. Two rules for one command, as for fine-tuning: an imported backbone
# waits for no bank.
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
