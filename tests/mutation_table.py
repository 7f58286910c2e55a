"""Deliberate bugs of `mutations.py` in layers, losses, sampling, data and models."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """A bug. Both texts may hold lines around the changed one, to be found once."""

    file: str  # below keras_parti/
    old: str
    new: str
    test: str  # below tests/, as pytest names it


MUTATIONS = [
    # Layers.
    Mutation(
        "layers/attention.py",
        "return queries * (queries.shape[-1] ** -0.5)",
        "return queries",
        "test_coca.py::test_a_pooler_is_attention_of_its_queries",
    ),
    Mutation(
        "layers/attention.py",
        "bias = ops.where(attention_mask, 0.0, MASKED)\n        queries",
        "bias = ops.where(attention_mask, 0.0, -1.0)\n        queries",
        "test_parti.py::test_an_id_changes_only_what_comes_after_it",
    ),
    Mutation(
        "layers/transformer.py",
        "return x + self.dropout(y, training=training)",
        "return self.dropout(y, training=training)",
        "test_parti.py::test_blocks_of_a_new_model_are_identities",
    ),
    Mutation(
        "layers/window.py",
        "return radius * (width + 1) + 1",
        "return radius * width + 1",
        "test_window.py"
        "::test_the_published_window_has_61_keys_within_5_rows_and_6_positions",
    ),
    Mutation(
        "layers/window.py",
        "return offsets[offsets >= 0]",
        "return offsets[offsets > 0]",
        "test_window.py::test_a_kernel_of_3_with_wraparound",
    ),
    Mutation(
        "layers/window.py",
        "(abs(columns - key_columns) <= radius)",
        "(columns - key_columns <= radius)",
        "test_window.py::test_a_kernel_of_3_cut_at_the_sides",
    ),
    Mutation(
        "layers/window_attention.py",
        "above = width * -(-(window_length(self.kernel_size, width) - 1) // width)",
        "above = width * ((window_length(self.kernel_size, width) - 1) // width)",
        "test_window_attention.py::test_sparse_is_dense_with_the_mask",
    ),
    Mutation(
        "layers/quantizer.py",
        "self.add_loss(codebook_loss + self.commitment_cost * commitment_loss)",
        "self.add_loss(self.commitment_cost * codebook_loss + commitment_loss)",
        "test_losses.py::test_the_quantizer_weighs_commitment_by_beta",
    ),
    Mutation(
        "layers/quantizer.py",
        "codes = vectors + ops.stop_gradient(codes - vectors)",
        "codes = codes + 0.0 * vectors",
        "test_quantizer.py"
        "::test_gradients_are_those_of_the_two_terms_and_pass_straight_through",
    ),
    Mutation(
        "layers/quantizer.py",
        "scores -= 0.5 * ops.sum(ops.square(codebook), axis=-1)",
        "scores -= ops.sum(ops.square(codebook), axis=-1)",
        "test_quantizer.py"
        "::test_each_vector_gets_its_nearest_code_and_the_loss_of_eq_3",
    ),
    Mutation(
        "layers/embeddings.py",
        "x = ops.transpose(x, (0, 1, 3, 2, 4, 5))\n"
        "    return ops.reshape(x, (batch, rows * columns,",
        "x = ops.transpose(x, (0, 3, 1, 2, 4, 5))\n"
        "    return ops.reshape(x, (batch, rows * columns,",
        "test_vit_vqgan.py::test_patches_are_cut_in_raster_order",
    ),
    Mutation(
        "layers/embeddings.py",
        "[[BOS, EOS] + [PAD] * (length - 2)]",
        "[[BOS] + [PAD] * (length - 1)]",
        "test_parti.py::test_a_dropped_condition_is_the_empty_prompt",
    ),
    Mutation(
        "layers/embeddings.py",
        "share = ops.where(draws[:, :1] < self.rate, draws[:, 1:2], 0.0)",
        "share = ops.where(draws[:, :1] < self.rate, self.rate, 0.0)",
        "test_parti.py::test_ids_of_the_row_before_are_mixed_in_at_shares_of_their_own",
    ),
    Mutation(
        "layers/grid.py",
        "vectors = self.row_vectors[:, None] + self.column_vectors[None]",
        "vectors = self.column_vectors[:, None] + self.row_vectors[None]",
        "test_vim.py::test_a_place_has_the_vectors_of_its_row_and_column",
    ),
    Mutation(
        "layers/resampling.py",
        "x = ops.reshape(inputs, (batch, height, width, s, s * channels))",
        "x = ops.reshape(inputs, (batch, width, height, s, s * channels))",
        "test_resampling.py::test_a_shuffle_puts_each_channel_where_its_pixel_is",
    ),
    Mutation(
        "layers/resampling.py",
        "squares = ops.sum(ops.square(self.v), axis=(0, 1, 2))",
        "squares = ops.sum(ops.square(self.v))",
        "test_resampling.py::test_outputs_are_those_of_tensorflow_addons",
    ),
    Mutation(
        "layers/discriminator.py",
        "x, stride = blur(x, (-(-around // 2), around // 2)), 2",
        "x, stride = blur(x, (around // 2 + 1, around // 2 - 1)), 2",
        "test_discriminator.py::test_a_halving_convolution_moves_nothing",
    ),
    # Losses, metrics, optimisers, sampling, text, data.
    Mutation(
        "losses.py",
        "error = error * ops.exp(-log_scale)",
        "error = error * ops.exp(log_scale)",
        "test_losses.py::test_logit_laplace_is_its_formula",
    ),
    Mutation(
        "losses.py",
        "return 0.5 * ops.mean(ops.sum(squares, axis=(1, 2, 3)))",
        "return ops.mean(ops.sum(squares, axis=(1, 2, 3)))",
        "test_losses.py::test_r1_is_half_the_mean_of_squared_norms",
    ),
    Mutation(
        "losses.py",
        "count = ops.maximum(1.0, ops.sum(told, axis=-1))",
        "count = ops.maximum(1.0, ops.sum(ops.ones_like(told), axis=-1))",
        "test_text_encoder.py::test_the_loss_is_over_hidden_tokens",
    ),
    Mutation(
        "losses.py",
        "return upstream[..., None] * (shares - wanted)",
        "return upstream[..., None] * shares",
        "test_losses.py::test_the_slope_of_cross_entropy_is_shares_less_what_was_right",
    ),
    Mutation(
        "layers/logits.py",
        "ones = ops.ones((1, ops.shape(upstream)[0]), dtype)",
        "ones = ops.zeros((1, ops.shape(upstream)[0]), dtype)",
        "test_logits.py::test_gradients_are_products_of_what_was_rounded",
    ),
    Mutation(
        "losses.py",
        "return (losses[0] + losses[1]) / 2",
        "return losses[0]",
        "test_text_encoder.py"
        "::test_the_contrastive_loss_is_that_of_two_classifications",
    ),
    Mutation(
        "optimizers.py",
        "update = update / ops.maximum(1.0, size / self.clipping_threshold)",
        "update = update / ops.maximum(1.0, size)",
        "test_optimizers.py::test_adafactor_is_its_equations_step_by_step",
    ),
    Mutation(
        "optimizers.py",
        "done = ops.clip((step - self.decay_start) / span, 0.0, 1.0)",
        "done = ops.clip(step / span, 0.0, 1.0)",
        "test_optimizers.py::test_the_schedule_is_the_papers",
    ),
    Mutation(
        "optimizers.py",
        "            ops.reshape(gradient, variable.shape)\n",
        "            gradient\n",
        "test_optimizers.py::test_the_norm_is_that_of_the_dense_gradient",
    ),
    Mutation(
        "sampling.py",
        "(scale[:, None] - 1.0)",
        "scale[:, None]",
        "test_sampling.py::test_every_cached_step_draws_from_the_full_pass",
    ),
    Mutation(
        "sampling.py",
        "before = ops.cumsum(shares, axis=-1) - shares",
        "before = ops.cumsum(shares, axis=-1)",
        "test_sampling.py::test_filters_keep_what_their_definition_keeps",
    ),
    Mutation(
        "sampling.py",
        "key = _mix(ops.bitwise_xor(seeds[:, 1], key))",
        "key = _mix(ops.bitwise_xor(seeds[:, 0], key))",
        "test_sampling.py::test_both_words_of_a_seed_count",
    ),
    Mutation(
        "sampling.py",
        "surprise = ops.logsumexp(conditional, axis=-1) - chosen",
        "surprise = ops.logsumexp(guided, axis=-1) - chosen",
        "test_sampling.py::test_the_score_is_the_mean_log_likelihood_of_the_full_pass",
    ),
    Mutation(
        "layers/attention_parts.py",
        "of_logits = weights * (of_weights - mean)",
        "of_logits = weights * of_weights",
        "test_attention_parts.py::test_parts_give_the_result_and_slopes_of_the_whole",
    ),
    Mutation(
        "decoding.py",
        "kept = count - 1 - (count - 1 - slots) % len(slots)",
        "kept = slots",
        "test_cached_decoder.py::test_steps_go_on_from_given_ids",
    ),
    Mutation(
        "decoding.py",
        "seen = ops.logical_and(ops.take(column, back), back <= position)",
        "seen = ops.take(column, back)",
        "test_cached_decoder.py::test_every_step_is_the_position_of_the_full_pass",
    ),
    Mutation(
        "text.py",
        "kept = [BOS, *pieces[: self.length - 2], EOS]",
        "kept = [BOS, *pieces, EOS][: self.length]",
        "test_text.py::test_a_long_prompt_keeps_its_start_and_is_reported",
    ),
    Mutation(
        "text.py",
        'name=f"sentencepiece_{self.fingerprint[:16]}"',
        'name="sentencepiece"',
        "test_text.py::test_a_saved_model_takes_strings_without_this_library",
    ),
    Mutation(
        "metrics.py",
        "variance = _local_mean(images * images) - local * local",
        "variance = _local_mean(images * images)",
        "test_metrics.py::test_ssim_is_the_formula_of_each_picture_alone",
    ),
    Mutation(
        "metrics.py",
        "better = ops.logical_and(scores >= best,",
        "better = ops.logical_and(scores > best,",
        "test_coca_training.py::test_recall_counts_ties_as_misses",
    ),
    Mutation(
        "data/token_cache.py",
        'if tokenizer_fingerprint not in (None, manifest["tokenizer"]):',
        "if tokenizer_fingerprint is None:",
        "test_token_cache.py::test_tokens_of_another_tokenizer_are_refused",
    ),
    Mutation(
        "data/token_cache.py",
        'return bool(known) and path.is_file() and _sha256(path) == known["sha256"]',
        "return bool(known) and path.is_file()",
        "test_token_cache.py::test_a_truncated_shard_is_named_and_made_again[npz]",
    ),
    Mutation(
        "data/augmentation.py",
        "return dataset.enumerate(first).map(crop",
        "return dataset.enumerate().map(crop",
        "test_folder.py::test_each_pass_of_a_stored_split_has_other_crops",
    ),
    Mutation(
        "data/tar_shards.py",
        'if path.is_absolute() or ".." in path.parts or',
        "if path.is_absolute() or",
        "test_listings.py::test_what_is_wrong_in_an_archive_is_left_out_and_named",
    ),
    Mutation(
        "data/decoding.py",
        'white = Image.new("RGBA", picture.size, "white")',
        'white = Image.new("RGBA", picture.size, "black")',
        "test_decoding.py::test_half_transparent_is_half_way_to_white",
    ),
    # Models.
    Mutation(
        "models/text_to_image.py",
        "given = (ids, np.int32(rows * grid))",
        "given = (ids, np.int32(rows))",
        "test_sampled_pictures.py"
        "::test_given_rows_are_kept_and_the_others_follow_the_seed[1]",
    ),
    Mutation(
        "models/choosing.py",
        'best = np.argsort(-score, axis=1, kind="stable")[:, :keep]',
        'best = np.argsort(-score, axis=1, kind="stable")[:, -keep:]',
        "test_class_to_image.py::test_the_best_of_many_are_those_of_the_best_scores",
    ),
    Mutation(
        "models/vit_vqgan.py",
        "(ops.sigmoid(x[..., :3]) - epsilon) / (1 - 2 * epsilon)",
        "(ops.sigmoid(x[..., :3]) - epsilon) / (1 - epsilon)",
        "test_vit_vqgan.py::test_images_are_the_inverse_map_of_the_mean",
    ),
    Mutation(
        "models/vit_vqgan.py",
        "for weight in (*self.encoder.weights, *self.quantizer.weights):",
        "for weight in self.encoder.weights:",
        "test_vit_vqgan.py::test_another_weight_is_another_fingerprint",
    ),
    Mutation(
        "models/parti.py",
        "x = ops.concatenate([self.begin(ops.shape(ids)[0]), ids[:, :-1]], axis=1)",
        "x = ids",
        "test_parti.py::test_an_id_changes_only_what_comes_after_it",
    ),
    Mutation(
        "models/parti.py",
        "mask = ops.not_equal(text_ids, PAD)[:, None, None, :]",
        "mask = ops.not_equal(text_ids, -1)[:, None, None, :]",
        "test_parti.py::test_padding_is_not_seen",
    ),
    Mutation(
        "models/vim.py",
        'yield ops.mean(ops.cast(x[:, 1:], "float32"), axis=1)',
        'yield ops.mean(ops.cast(x, "float32"), axis=1)',
        "test_vim.py::test_features_are_the_mean_output_of_a_block_over_the_ids",
    ),
    Mutation(
        "models/coca.py",
        "return x[:, :-1], self.unimodal_norm(x[:, -1])",
        "return x[:, :-1], self.unimodal_norm(x[:, 0])",
        "test_coca.py::test_the_text_vector_sees_the_whole_text_and_no_padding",
    ),
    Mutation(
        "models/coca.py",
        "mask = causal_mask(self.config.text_length - 1)",
        "mask = None",
        "test_coca.py::test_a_token_is_predicted_from_those_before_it_and_the_picture",
    ),
    Mutation(
        "models/wdsr.py",
        "x = ops.relu(wide(inputs))",
        "x = wide(ops.relu(inputs))",
        "test_wdsr.py::test_a_model_is_its_equations",
    ),
    Mutation(
        "models/wdsr.py",
        "last = 1.0 / math.sqrt(config.num_blocks)",
        "last = 1.0 / config.num_blocks",
        "test_wdsr.py::test_the_blocks_of_a_stage_begin_with_gains_that_add_up_to_one",
    ),
    Mutation(
        "models/tiling.py",
        "length = min(side, tile + 2 * radius)",
        "length = min(side, tile + radius)",
        "test_tiling.py::test_tiles_are_the_whole_picture",
    ),
    Mutation(
        "models/text_encoder.py",
        "text = self.text_projection(memory[:, 0])",
        "text = self.text_projection(memory[:, -1])",
        "test_text_encoder.py::test_a_text_is_compared_by_the_output_at_bos",
    ),
]
