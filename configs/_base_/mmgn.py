# What a run needs of mmgn, whatever its norms; no key of mmdet's own files is in it, so it goes beside any of them.
custom_imports = dict(imports=['mmgn'], allow_failed_imports=False)
custom_hooks = [dict(type='RunRecordHook')]
