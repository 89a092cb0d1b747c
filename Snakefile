# The steps of a plan as Snakemake jobs. What they read and write stands in src/anchored/steps.py, what they do in the plan.
#
#     snakemake --cores 2                                  all tables, with profiles/default
#     snakemake --cores 2 fims                             a part; the names stand below
#     snakemake --cores 2 --config plan=plans/mine.json    another plan
#
# The plan is no `configfile`: a second configfile would be merged into the first, giving the union of two grids.
from snakemake.utils import min_version

from anchored.errors import AnchoredError
from anchored.graph import Graph, prepare_jobs, visible_gpus

min_version("9.14")
prepare_jobs()

try:
    GRAPH = Graph.load(config.get("plan", "plan.json"))
except AnchoredError as error:
    raise WorkflowError(error)

# 1 on a machine with a GPU, else 0. profiles/default lends one GPU at a time; a cluster's profile sets the resource
# by `set-resources`, since the machine that submits need not have what the jobs get.
GPUS = visible_gpus()


report: "workflow/report/workflow.rst"


# Used with `--software-deployment-method apptainer` only.
container: config.get("container", "containers/anchored.sif")


localrules:
    all,
    data,
    backbones,
    fims,
    runs,


rule all:
    input:
        GRAPH.outputs("tables"),


rule data:
    input:
        GRAPH.targets("datasets"),


rule backbones:
    input:
        GRAPH.targets("backbones"),


rule fims:
    input:
        GRAPH.targets("whole", "merged"),


rule runs:
    input:
        GRAPH.targets("baseline", "anchored"),


include: "workflow/rules/prepare.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/fim.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/tables.smk"
