"""Deliberate bugs of `mutations.py` around the models: in runs, meshes, servers."""

from mutation_table import Mutation

MUTATIONS = [
    # Training.
    Mutation(
        "training/adversarial.py",
        "loss = self.r1_weight * self.r1_interval * r1",
        "loss = self.r1_weight * r1",
        "test_adversarial.py"
        "::test_r1_is_taken_every_few_steps_with_so_many_times_its_weight",
    ),
    Mutation(
        "training/adversarial.py",
        "return tf.nest.map_structure(lambda x: x / self.accumulation, sums)",
        "return sums",
        "test_adversarial.py::test_parts_of_a_batch_add_up_to_the_batch",
    ),
    Mutation(
        "training/text_encoder.py",
        "replaced = tf.where(kinds < 0.8, UNK,",
        "replaced = tf.where(kinds < 0.7, UNK,",
        "test_text_encoder.py::test_tokens_are_hidden_as_by_bert",
    ),
    Mutation(
        "training/contrastive.py",
        "return context.all_gather(vectors, axis=0), before",
        "return context.all_gather(vectors, axis=0), 0",
        "test_coca_training.py::test_a_text_chooses_among_the_pictures_of_all_replicas",
    ),
    Mutation(
        "training/guards.py",
        "if not finite.all():",
        "if not finite.any():",
        "test_guards.py::test_infinite_weights_are_found_before_they_are_saved",
    ),
    Mutation(
        "training/workdir.py",
        "before = done * steps_per_epoch + step",
        "before = step",
        "test_training.py::test_a_killed_parti_run_ends_as_if_it_had_not_been",
    ),
    Mutation(
        "training/workdir.py",
        "for field, value in begun.items():",
        "for field, value in now.items():",
        "test_training.py::test_a_run_begun_before_there_was_a_field_goes_on",
    ),
    Mutation(
        "training/checkpoints.py",
        "for path in reversed(_files(folder)):",
        "for path in _files(folder):",
        "test_mesh_training.py::test_the_newest_checkpoint_that_is_whole_is_read",
    ),
    Mutation(
        "training/averages.py",
        "            variable.assign(value)",
        "            value",
        "test_training_parti.py"
        "::test_a_killed_run_with_all_its_options_ends_as_if_it_had_not_been",
    ),
    # The mesh.
    Mutation(
        "mesh/layouts.py",
        "return -(-size // self.pieces(axis)) * self.pieces(axis)",
        "return size // self.pieces(axis) * self.pieces(axis)",
        "test_mesh_layouts.py::test_a_slice_is_the_whole_divided_by_the_mesh",
    ),
    Mutation(
        "mesh/noise.py",
        "tf.cast(_uniform(bits) >= rate, x.dtype) / (1 - rate)",
        "tf.cast(_uniform(bits) >= rate, x.dtype)",
        "test_mesh_dropout.py"
        "::test_the_share_that_is_dropped_is_the_rate_and_the_mean_stays",
    ),
    Mutation(
        "mesh/parti.py",
        "q *= self.kv.size**-0.5",
        "q *= self.embed.size**-0.5",
        "test_mesh_parti.py::test_logits_loss_and_gradients_are_those_of_keras",
    ),
    Mutation(
        "mesh/step.py",
        "tuple(map(slice, begin, np.add(begin, shape)))",
        "tuple(map(slice, np.zeros_like(begin), shape))",
        "test_mesh_parti.py::test_weights_go_to_a_mesh_and_come_back",
    ),
    # Evaluation and serving.
    Mutation(
        "evaluation/distances.py",
        "np.trace(first) + np.trace(second) - 2.0 * trace",
        "np.trace(first) + np.trace(second) - trace",
        "test_distances.py::test_the_frechet_distance_is_that_of_scipys_root",
    ),
    Mutation(
        "evaluation/distances.py",
        "neighbours)[:, neighbours]",
        "neighbours)[:, neighbours - 1]",
        "test_distances.py::test_precision_and_recall_are_shares_within_balls",
    ),
    Mutation(
        "evaluation/statistics.py",
        "weight = self.count * other.count / total",
        "weight = other.count",
        "test_distances.py::test_mean_and_covariance_are_those_of_all_pictures_at_once",
    ),
    Mutation(
        "serving/row_sizes.py",
        "which = tf.minimum(tf.range(size), rows - 1)",
        "which = tf.minimum(tf.range(size), 0)",
        "test_row_sizes.py"
        "::test_a_function_sees_the_next_size_and_gives_the_rows_asked_for",
    ),
    Mutation(
        "serving/graph_inputs.py",
        "return colour * alpha + (1.0 - alpha)",
        "return colour * alpha",
        "test_served_inputs.py::test_transparent_palette_entry_is_white",
    ),
    Mutation(
        "serving/json_tensors.py",
        "if isinstance(value, int) and dtype.min <= value <= dtype.max:",
        "if isinstance(value, int):",
        "test_json_tensors.py::test_what_does_not_fit_the_signature_is_refused",
    ),
    Mutation(
        "serving/versions.py",
        "return sorted(numbers)[-max(policy.latest.num_versions, 1) :]",
        "return sorted(numbers)[: max(policy.latest.num_versions, 1)]",
        "test_versions.py::test_policies_and_labels_choose_versions",
    ),
    Mutation(
        "serving/served_chain.py",
        'rows["seed"] += steps',
        'rows["seed"] += 0 * steps',
        "test_served_chain.py::test_served_choice_is_the_best_of_the_seeds_that_follow",
    ),
    Mutation(
        "serving/scheduler.py",
        "if batch and rows + job.rows > most:",
        "if batch and rows > most:",
        "test_scheduler.py::test_runs_never_grow_beyond_the_most_rows",
    ),
    # Weights of others.
    Mutation(
        "models/enhancing_transformers.py",
        "half = theirs[PATCHES].transpose(2, 3, 1, 0)",
        "half = theirs[PATCHES].transpose(3, 2, 1, 0)",
        "test_enhancing_transformers.py::test_a_converted_model_is_theirs",
    ),
    Mutation(
        "models/enhancing_transformers.py",
        "NORM_EPSILON = 1e-5",
        "NORM_EPSILON = 1e-3",
        "test_enhancing_transformers.py::test_a_converted_model_is_theirs",
    ),
    Mutation(
        "models/enhancing_transformers.py",
        "elif not np.isfinite(array).all():",
        "elif np.isnan(array).all():",
        "test_enhancing_transformers.py::test_a_refusal_lists_all_differences",
    ),
    Mutation(
        "weight_files/torch_file.py",
        'if ".." in parts or parts[:1] != root',
        "if parts[:1] != root",
        "test_weight_files.py::test_an_archive_of_another_kind_is_refused",
    ),
    Mutation(
        "weight_files/unpickler.py",
        "if (module, name) not in self._allowed:",
        'if module == "builtins":',
        "test_weight_files.py::test_code_in_a_pickle_is_refused_and_not_run",
    ),
    Mutation(
        "weight_files/safetensors.py",
        "begin != end or",
        "begin < 0 or",
        "test_weight_files.py::test_a_wrong_description_is_refused",
    ),
    Mutation(
        "training/patch_start.py",
        "around = np.sin(angle) * components",
        "around = angle * components",
        "test_patch_start.py::"
        "test_codes_lie_on_the_sphere_as_far_from_its_pole_as_patches_from_their_mean",
    ),
    Mutation(
        "training/least_squares.py",
        "added = ridge * np.trace(products)",
        "added = 100 * ridge * np.trace(products)",
        "test_patch_start.py::test_the_last_layer_is_the_one_of_least_squares",
    ),
    Mutation(
        "training/attention_start.py",
        "places(-row, -column)",
        "places(row, column)",
        "test_patch_start.py::test_each_head_of_the_first_block_looks_at_a_neighbour",
    ),
    Mutation(
        "training/attention_start.py",
        "np.sqrt(2 * LIKENESS /",
        "np.sqrt(LIKENESS /",
        "test_patch_start.py::"
        "test_the_heads_of_the_second_block_look_at_like_codes_around",
    ),
    Mutation(
        "training/attention_start.py",
        "deviations.mean() / deviations",
        "deviations.mean() / deviations.mean()",
        "test_patch_start.py::"
        "test_all_places_have_one_deviation_where_the_code_is_the_mean_one",
    ),
    Mutation(
        "training/preparation.py",
        "cut = int((lengths > vocabulary.length).sum())",
        "cut = int((lengths >= vocabulary.length).sum())",
        "test_training_parti.py::test_captions_that_are_cut_are_told",
    ),
    Mutation(
        "evaluation/likeness.py",
        "distance(originals[row : row + 1],",
        "distance(originals[:1],",
        "test_perceptual.py"
        "::test_copies_measured_together_have_the_distances_of_each_alone",
    ),
    Mutation(
        "cli/notes.py",
        "if checkpoints == _checkpoints(args.workdir):",
        "if not checkpoints:",
        "test_notes.py::test_a_training_that_is_refused_leaves_no_note",
    ),
]
