"""Published student accuracies, and the scores that predict them: the trajectory sets of RSR.

Yang et al. (arXiv 2601.14249) fine-tuned five students on 33 sets of traces by 11 teachers and
published sets and accuracies. Each set is scored here under each student, and the teachers' scores
are correlated with the accuracies of the students that learned from them.
"""
