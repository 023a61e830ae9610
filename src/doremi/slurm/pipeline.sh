# ---- from here on the same for every recipe ----
#
#   bash pipeline.sh                  submits every stage, each to begin after those that it needs
#   pipeline.sh STAGE [ARGUMENT]      is what the queue then runs
#
# After a failure, submit again: what is finished is skipped, what was interrupted goes on from what was saved.

recipe=$run/recipe.yaml

# ---- on the login node ----

submit_all() {
    refuse_if_queued
    : > "$run/slurm/jobs"
    local prepared searched last='' name
    prepared=$(submit_preparation)
    searched=$prepared
    if [ "$searches" = yes ]; then
        searched=$(submit search "afterok:$prepared" "${training[@]}" -- search)
    fi
    # One after the other: two methods may give the same weights, and then share their models. A model that fails is
    # left out of the comparison, so that those after it are trained all the same.
    local ready=afterok:$prepared
    if [ "$known_share_models" = yes ] || [ "${#known[@]}" -eq 0 ]; then
        ready=afterok:$searched
    fi
    for name in ${known[@]+"${known[@]}"}; do
        last=$(submit verify "$ready" "${training[@]}" -- train "$name")
        ready=afterany:$last
    done
    ready=afterok:$searched${last:+,afterany:$last}
    for name in ${to_be_found[@]+"${to_be_found[@]}"}; do
        last=$(submit verify "$ready" "${training[@]}" -- train "$name")
        ready=afterok:$searched,afterany:$last
    done
    submit evaluation "$ready" "${evaluating[@]}" -- evaluate > /dev/null
    echo "submitted: $(paste -sd, "$run/slurm/jobs")"
}

submit_preparation() {
    local after='' plan encode
    if [ "$prepare_tasks" -gt 0 ]; then
        plan=$(submit prepare '' "${preparing[@]}" -- plan) || return # set -e does not reach into $(...)
        encode=$(submit encode "afterok:$plan" "${preparing[@]}" --array="0-$((prepare_tasks - 1))" -- encode) || return
        after=afterok:$plan,afterany:$encode # it says which task failed, and why
    fi
    submit finish "$after" "${preparing[@]}" -- finish
}

# submit NAME DEPENDENCY OPTION... -- STAGE [ARGUMENT]: prints the number of the job
submit() {
    local options=(--job-name="doremi-$1") dependency=$2 id
    [ -z "$dependency" ] || options+=(--dependency="$dependency" --kill-on-invalid-dep=yes)
    shift 2
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    id=$(sbatch --parsable "${common[@]}" "${options[@]}" "$run/slurm/pipeline.sh" "$@") || return
    echo "${id%%;*}" >> "$run/slurm/jobs" # "number;cluster" on some
    echo "${id%%;*}"
}

refuse_if_queued() {
    local jobs
    [ -s "$run/slurm/jobs" ] || return 0
    jobs=$(paste -sd, "$run/slurm/jobs")
    if [ -n "$(squeue --noheader --jobs="$jobs" 2> /dev/null)" ]; then # an error there: Slurm has forgotten them
        echo "doremi: jobs of $run are still in the queue: wait (squeue --jobs=$jobs), or end them (scancel ${jobs//,/ })" >&2
        exit 2
    fi
}

# ---- on a node ----

# Run a command. When Slurm says that the time is nearly over, tell it to save, and put this job back into the queue.
run_step() {
    local step status=0
    time_is_over=
    "$@" &
    step=$!
    trap 'time_is_over=yes; kill -TERM "$step" 2> /dev/null' USR1
    wait "$step" || status=$?
    if [ -n "$time_is_over" ]; then # the signal has ended the first wait
        status=0
        wait "$step" || status=$?
    fi
    trap - USR1
    if [ -n "$time_is_over" ] && [ "$status" -ne 0 ]; then
        echo "doremi: the time is over; job $SLURM_JOB_ID goes back into the queue and continues from what was saved" >&2
        scontrol requeue "$SLURM_JOB_ID" ||
            echo "doremi: it may not be put back here; bash $(printf %q "$run/slurm/pipeline.sh") continues" >&2
        exit 130
    fi
    [ "$status" -eq 0 ] || exit "$status"
}

# A torchrun on each node. They meet at the first one, whose rank is given: with c10d it would have to recognise itself by
# the name that Slurm has for it (pytorch issue 73656). The rank that saves may take longer than the others: no step is
# killed at once when the first of its tasks ends.
on_every_node() {
    local hosts
    mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    [ -n "${hosts[0]-}" ] || { echo "doremi: scontrol does not say which nodes job $SLURM_JOB_ID has" >&2; exit 1; }
    export MASTER_ADDR=${hosts[0]} MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=$((grace - 30)) # torchrun would kill after 30 seconds
    [ -z "${SLURM_CPUS_PER_TASK-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # not inherited since Slurm 22.05
    # shellcheck disable=SC2016 # SLURM_NODEID is another on each node
    run_step srun --ntasks-per-node=1 --kill-on-bad-exit=0 --wait="$grace" bash -c 'exec python -m torch.distributed.run \
        --nnodes="$SLURM_JOB_NUM_NODES" --node-rank="$SLURM_NODEID" --master-addr="$MASTER_ADDR" \
        --master-port="$MASTER_PORT" --nproc-per-node="$0" -m -- doremi "$@"' "$processes" "$@"
}

run_stage() {
    case $1 in
        plan | encode) run_step python -m doremi.slurm.tasks "$1" "$run" ;;
        finish)
            [ "$prepare_tasks" -eq 0 ] || run_step python -m doremi.slurm.tasks finish "$run"
            run_step python -m doremi prepare "$recipe" --out "$run" # checks what can be checked before training
            ;;
        search) on_every_node search "$recipe" --out "$run" ;;
        train) on_every_node train "$recipe" --out "$run" --run "$2" ;;
        evaluate)
            run_step python -m doremi evaluate "$recipe" --out "$run"
            run_step python -m doremi report "$run"
            ;;
        *)
            echo "doremi: no stage $1" >&2
            exit 2
            ;;
    esac
}

if [ $# -gt 0 ]; then
    set_up
    set -euo pipefail
    run_stage "$@"
else
    set -euo pipefail
    submit_all
fi
