// nextflow run main.nf --jobs scenes.csv: one process a row; inputs and outputs are where the table says.
params.jobs = "scenes.csv"

process fuse {
    cpus 2
    errorStrategy 'retry'
    maxRetries 1

    input:
    tuple val(index), val(jobs)

    output:
    path "${index}.json"

    script:
    """
    OMP_NUM_THREADS=${task.cpus} hsfuse batch ${jobs} --index ${index} --resume --json > ${index}.json
    """
}

workflow {
    jobs = file(params.jobs).toAbsolutePath()
    rows = jobs.countLines() - 1
    Channel.of(0..<rows).map { index -> tuple(index, jobs) } | fuse
}
